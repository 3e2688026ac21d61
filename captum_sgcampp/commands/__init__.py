"""The command line `captum-sgcampp`: arguments only. The other folders do the work."""
