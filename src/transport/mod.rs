//! What the registers of a device mean.
