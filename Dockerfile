# A static binary, the public certificate authorities, a list of what it is made of, and nothing else: no shell, no
# libraries, no package manager.
#
#   buildah bud -t openbox-sidecar .
#   docker build --build-arg RUST=registry.example.com/rust:1.95 -t openbox-sidecar .
#   scripts/image-root.sh target/image && docker build --build-arg BINARY=prebuilt -t openbox-sidecar .
#   docker build --target init-net -t openbox-sidecar-init-net .

# Who compiles: any image of Debian or like it, with cargo, a C compiler and certificates.
ARG RUST=docker.io/library/rust:1.95-bookworm
# `prebuilt` takes what scripts/image-root.sh has put into target/image, and needs no builder.
ARG BINARY=compiled

FROM ${RUST} AS compiled
WORKDIR /build
COPY . .
# A static binary does not find the C library's getrandom by its name, and would read /dev/urandom, which a container
# without devices does not have: the kernel is asked instead.
ENV RUSTFLAGS='--cfg getrandom_backend="linux_getrandom"'
RUN apt-get update && apt-get install -y --no-install-recommends nftables \
	&& cargo install cargo-cyclonedx@0.5.9 --locked --quiet && scripts/image-root.sh /out

FROM scratch AS prebuilt
COPY target/image/ /out/

FROM ${BINARY} AS binary

# The same binary and `nft`, for the container of a pod that sets the kernel's rules and ends. Apart, since the sidecar
# itself must be able to nothing of the kind.
FROM scratch AS init-net
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="openbox-sidecar-init-net" \
	org.opencontainers.image.description="Sets the rules by which the kernel leads a pod's connections to openbox-sidecar" \
	org.opencontainers.image.licenses="Apache-2.0" \
	org.opencontainers.image.version="${VERSION}" \
	org.opencontainers.image.revision="${REVISION}"
COPY --from=binary /out/root/ /
COPY --from=binary /out/net/ /
ENV PATH=/usr/sbin
ENTRYPOINT ["/openbox-sidecar"]
CMD ["init-net", "install"]

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="openbox-sidecar" \
	org.opencontainers.image.description="Governs what AI agents do to the outside world, from beside them" \
	org.opencontainers.image.licenses="Apache-2.0" \
	org.opencontainers.image.version="${VERSION}" \
	org.opencontainers.image.revision="${REVISION}"
COPY --from=binary /out/root/ /
# The one folder that it writes to; in a pod a volume is mounted there.
COPY --from=binary --chown=1580:1580 /out/state/ /var/lib/openbox-sidecar/
# There is no home folder to keep state in.
ENV OPENBOX_STATE_DIR=/var/lib/openbox-sidecar
# Its own, and not 65532, which many images share: who runs as this user can read what the sidecar keeps.
USER 1580:1580
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s CMD ["/openbox-sidecar", "health"]
ENTRYPOINT ["/openbox-sidecar"]
CMD ["serve"]
