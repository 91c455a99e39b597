//! Arguments to configuration; one file per command.
