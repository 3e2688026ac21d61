"""The meeting with the model: every hook, every autograd call and the compiler. Nothing here knows a formula."""
