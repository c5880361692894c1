#!/usr/bin/env bash
# Build an image without a daemon and without user namespaces: deploy/build-with-buildah.sh [IMAGE]
#
# IMAGE is server, device, bench or vllm. Needs buildah, and root (chroot isolation). Settings:
#   BASE             the base image; any with Python 3.11 as python3 (default: the Dockerfile's)
#   PIP_EXTRA_ARGS   further arguments of pip inside the build
#   BUILD_ARGS       further build arguments, "NAME=VALUE ..."
#   PLATFORM         another processor, such as linux/arm64: BASE must be of it, and the kernel must
#                    run its programs (qemu-user-static with binfmt)
#   BUILD_VOLUMES    host paths the build may read, "SOURCE:TARGET[:ro] ...": a pip.conf, a folder of
#                    wheels, certificates. Nothing of them stays in the image.
#   BUILD_STORE      where images are kept (default: pd-images in the temporary folder)
set -euo pipefail

image="${1:-server}"
top="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
dockerfile="$top/deploy/$image.Dockerfile"
store="${BUILD_STORE:-${TMPDIR:-/tmp}/pd-images}"

[[ -f "$dockerfile" ]] || { echo "no image called $image; known: server device bench vllm" >&2; exit 2; }
command -v buildah >/dev/null || { echo "buildah is missing; install it first" >&2; exit 2; }

options=()
[[ -z "${BASE:-}" ]] || options+=(--build-arg "BASE=$BASE")
[[ -z "${PIP_EXTRA_ARGS:-}" ]] || options+=(--build-arg "PIP_EXTRA_ARGS=$PIP_EXTRA_ARGS")
[[ -z "${PLATFORM:-}" ]] || options+=(--platform "$PLATFORM")
for argument in ${BUILD_ARGS:-}; do options+=(--build-arg "$argument"); done
for volume in ${BUILD_VOLUMES:-}; do options+=(--volume "$volume"); done

# --format docker keeps HEALTHCHECK, which the OCI format has no place for.
buildah --storage-driver vfs --root "$store/root" --runroot "$store/run" \
  bud --isolation chroot --format docker "${options[@]}" \
  --file "$dockerfile" --tag "localhost/pd-$image" "$top"
