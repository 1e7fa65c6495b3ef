#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what the build needs and the machine lacks: Debian packages, as root or through sudo; otherwise
# prints the one command to run. Does nothing, quickly, when all is there.
set -eu

# Rust that can build the kernel, EL2 and arm64 programs; its formatter and linter for `make test`.
packages="rustc-web cargo-web rust-web-src rustfmt-web rust-web-clippy"
# C compilers: the kernel's (clang), the host's and the cross linker with a static C library.
packages="$packages clang-22 lld-22 llvm-22 libclang-22-dev gcc libc6-dev gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
# What Kbuild calls.
packages="$packages make bc bison flex cpio kmod python3 libelf-dev libssl-dev xz-utils"
# The machine.
packages="$packages qemu-system-arm util-linux ca-certificates git"
# What `make test` checks with: Android.bp files, SELinux policies, device tree bindings.
packages="$packages blueprint-tools m4 checkpolicy secilc setools python3-setools selinux-utils policycoreutils dt-schema device-tree-compiler python3-venv"

if ! command -v dpkg-query >/dev/null; then
    echo "This is not Debian. The build needs the equivalents of:" >&2
    echo "  $packages" >&2
    echo "and KERNEL_SRC=/path to a Linux 7.3 tree." >&2
    exit 0
fi

missing=
for package in $packages; do
    # rustup's tools do as well as Debian's for formatting and linting.
    case $package in
    rustfmt-web) cargo fmt --version >/dev/null 2>&1 && continue ;;
    rust-web-clippy) cargo clippy --version >/dev/null 2>&1 && continue ;;
    esac
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

install="apt-get update && apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" = 0 ]; then
    as=
elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
    as=sudo
else
    echo "Some packages are missing. Run this as root, then try again:" >&2
    echo "  $install" >&2
    exit 1
fi
echo "Installing packages:$missing"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # a list of words
if ! { $as apt-get -q update && $as apt-get -q install -y --no-install-recommends $missing; }; then
    echo "The packages cannot be installed. rustc-web and clang-22 come from Debian 12's security archive:" >&2
    echo "see that APT's sources have bookworm-security, then run as root:" >&2
    echo "  $install" >&2
    exit 1
fi
