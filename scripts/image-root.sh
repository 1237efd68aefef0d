#!/usr/bin/env bash
# Puts into FOLDER what the image holds: scripts/image-root.sh FOLDER [options of cargo, instead of --profile dist]
# It needs cargo, cargo-cyclonedx, nft and a machine that has the public certificate authorities.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly out=$1
shift
readonly options=("${@:---profile=dist}")
readonly authorities=/etc/ssl/certs/ca-certificates.crt

if ! nft=$(PATH="$PATH:/usr/sbin:/sbin" command -v nft); then
	echo "nft is not there; it comes with the package nftables" >&2
	exit 1
fi
if [[ ! -r $authorities ]]; then
	echo "$authorities is not there; it comes with the package ca-certificates" >&2
	exit 1
fi
# Static, with the resolver of names: glibc's own reads /etc/hosts and /etc/resolv.conf and loads nothing. The flag is
# given to the binary alone, so that dependencies are compiled once for it and for everything else.
cargo rustc --locked "${options[@]}" --bin openbox-sidecar -- -C target-feature=+crt-static
cargo cyclonedx --format json --no-build-deps --override-filename sbom
profile=dev
previous=
for option in "${options[@]}"; do
	case $previous:$option in
	--profile:*) profile=$option ;;
	*:--profile=*) profile=${option#*=} ;;
	*:--release | *:-r) profile=release ;;
	esac
	previous=$option
done
# Cargo names the folders of its own profiles otherwise.
case $profile in
dev | test) folder=debug ;;
bench) folder=release ;;
*) folder=$profile ;;
esac

rm -rf "$out"
mkdir -p "$out/state" "$out/root/var/lib" "$out/root/etc/ssl/certs" "$out/root/usr/share/doc/openbox-sidecar"
# A folder that is copied must hold something.
: >"$out/state/.keep"
strip -o "$out/root/openbox-sidecar" "${CARGO_TARGET_DIR:-target}/$folder/openbox-sidecar"
install -m 644 "$authorities" "$out/root/etc/ssl/certs/ca-certificates.crt"
install -m 644 LICENSE "$out/root/usr/share/doc/openbox-sidecar/LICENSE"
install -m 644 sbom.json "$out/root/usr/share/doc/openbox-sidecar/sbom.cdx.json"
rm sbom.json

# What init-net drives, with the libraries that it loads, each where it asks for it, and their licenses.
mkdir -p "$out/net/usr/sbin"
install -m 755 "$nft" "$out/net/usr/sbin/nft"
{ echo "$nft" && ldd "$nft" | grep -o '/[^ ]*'; } | while read -r file; do
	[[ $file == "$nft" ]] || install -D -m 755 "$file" "$out/net$file"
	package=$(dpkg-query -S "$file" 2>/dev/null || dpkg-query -S "/usr$file")
	package=${package%%:*}
	install -D -m 644 "/usr/share/doc/$package/copyright" "$out/net/usr/share/doc/$package/copyright"
done
