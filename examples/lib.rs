//! Programs that show mproc; each file beside this one is one. See README.md here for the list.
