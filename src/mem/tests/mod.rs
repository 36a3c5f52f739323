//! Tests of the memory layer that need its insides, or make proofs.

mod child;
mod dma;
mod pool;
mod quarantine;
mod region;
mod space;
