//! Stories of an agent on the far side: how it is heard at its own rate, and calls that come from it and go to it.
