#!/usr/bin/env bash
# Unpacks packages of Debian sid, and all they need, into a folder of their own:
# programs that the machine's Debian does not have, without making sid a source
# of the machine's packages. Signatures are checked as apt always does.
#
#   from-sid.sh FOLDER PACKAGE...
#   from-sid.sh --only PATTERN... -- FOLDER PACKAGE   # files of one package, nothing that runs
#
# A program of it runs with its own loader and libraries: FOLDER/run PROGRAM ARGUMENTS...
set -euo pipefail
patterns=()
if [[ $1 == --only ]]; then
	shift
	while [[ $1 != -- ]]; do
		patterns+=("$1")
		shift
	done
	shift
fi
folder=$1
shift

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial" "$work/unpacked"
: >"$work/status"
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >"$work/sources.list"
options=(
	-o "Dir::State=$work/state" -o "Dir::State::status=$work/status"
	-o "Dir::Cache=$work/cache"
	-o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
	-o Acquire::Languages=none -o APT::Sandbox::User=root -o Debug::NoLocking=1
)
apt-get "${options[@]}" -qq update
if ((${#patterns[@]})); then
	(cd "$work" && apt-get "${options[@]}" -qq download "$1")
	dpkg-deb --fsys-tarfile "$work/$1"_*.deb | tar -x -C "$work/unpacked" --wildcards "${patterns[@]}"
	rm -rf "$folder"
	mkdir -p "$(dirname "$folder")"
	mv "$work/unpacked" "$folder"
	exit
fi
apt-get "${options[@]}" -qq -y --no-install-recommends --download-only install "$@" >/dev/null
for package in "$work"/cache/archives/*.deb; do
	dpkg-deb -x "$package" "$work/unpacked"
done
cat >"$work/unpacked/run" <<'RUN'
#!/bin/sh
# Runs a program of this folder with the libraries of this folder.
root=$(dirname "$(readlink -f "$0")")
libraries=$(echo "$root"/usr/lib/*-linux-gnu*)
loader=$(echo "$root"/usr/lib*/ld-linux*.so.*)
program=$root/usr/bin/$1
[ -e "$program" ] || program=$root/usr/sbin/$1
shift
exec "${loader%% *}" --library-path "${libraries%% *}" "$program" "$@"
RUN
chmod +x "$work/unpacked/run"
rm -rf "$folder"
mkdir -p "$(dirname "$folder")"
mv "$work/unpacked" "$folder"
