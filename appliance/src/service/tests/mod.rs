//! Contract tests of the service.
