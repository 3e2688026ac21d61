"""The command line `captum-sgcampp`: arguments only; the work is done by the folders below."""
