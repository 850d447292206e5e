//! The one place that asks the kernel: direct block I/O, durable small files, clock, entropy.
