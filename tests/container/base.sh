#!/usr/bin/env bash
# Build a base image of Debian's Python from Debian's packages, for machines that reach no image registry.
# Prints its name; builds it once. Needs root, buildah and debootstrap.
set -euo pipefail
export STORAGE_DRIVER=${STORAGE_DRIVER:-vfs} BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot}
image=localhost/python-base:bookworm
if ! buildah inspect --type image "$image" >/dev/null 2>&1; then
  root=$(mktemp -d)
  trap 'rm -rf "$root"' EXIT
  packages=python3,python3-pip,python3-venv,ca-certificates
  debootstrap --variant=minbase --include=$packages bookworm "$root" >&2
  ln -s python3 "$root/usr/bin/python"
  # Nothing but jobd is ever installed there.
  rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED "$root"/var/cache/apt/archives/*.deb
  container=$(buildah from scratch)
  buildah add --quiet "$container" "$root" / >&2
  buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
  buildah commit --quiet "$container" "$image" >&2
  buildah rm "$container" >&2
fi
echo "$image"
