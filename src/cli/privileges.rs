//! What the sidecar may do on this machine: it is given away by who starts it, not by itself. It binds high ports and
//! opens its own files, so there is nothing to drop, only something not to have.

/// What is wrong with the user that this process runs as; `None`: nothing.
pub(super) fn complaint() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then_some(
        "the sidecar runs as root, and needs nothing of it: whoever breaks it has the machine, and rules of init-net exempt root instead of a user of its own; run it as one that nothing else runs as (the image's is 1580), with CAP_NET_ADMIN for listen.transparent_mode: tproxy alone",
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn root_is_complained_of_and_nobody_else() {
        let root = rustix::process::geteuid().is_root();
        assert_eq!(super::complaint().is_some(), root);
    }
}
