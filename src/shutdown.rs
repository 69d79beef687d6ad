//! One shutdown signal, passed by argument: the first SIGTERM or SIGINT drains, a second SIGINT ends the process at once.
