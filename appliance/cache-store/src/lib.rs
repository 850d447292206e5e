//! The cache store: where sealed segments wait between appliance and hydrator.
