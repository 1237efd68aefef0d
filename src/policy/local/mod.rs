//! The embedded policy engine.
