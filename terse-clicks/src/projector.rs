//! The log, projected onto the read model.
