//! The appliance's API as its clients see it, and the HTTPS client for it.
