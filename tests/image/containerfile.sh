#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# containerfile.sh BUILD_DIR: builds image/Containerfile with buildah, and compares its image with that of `make image` for BUILD_DIR: names,
# kinds, modes, owners, the content of what is ours, and the configuration. Root; needs no container engine and no registry of images: the base
# image is made by debootstrap, from where this machine gets its packages.
set -euo pipefail
cd "$(dirname "$0")/../.."

build=$(realpath "${1:?usage: containerfile.sh BUILD_DIR}")
scratch=$(mktemp -d)
engine=(buildah --storage-driver vfs --root "$scratch/store" --runroot "$scratch/run")
trap '"${engine[@]}" umount --all > /dev/null; rm -rf "$scratch"' EXIT

base_image() {
  local container
  debootstrap --variant=minbase bookworm "$scratch/base" > "$scratch/log" || { tail -20 "$scratch/log" >&2; return 1; }
  rm -rf "$scratch/base/etc/apt"
  cp -a /etc/apt "$scratch/base/etc/apt"
  container=$("${engine[@]}" from scratch)
  tar -C "$scratch/base" -cf "$scratch/base.tar" .
  rm -rf "$scratch/base"
  "${engine[@]}" add --quiet "$container" "$scratch/base.tar" / > /dev/null
  rm "$scratch/base.tar"
  "${engine[@]}" config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
  "${engine[@]}" commit --quiet --rm "$container" docker.io/library/debian:12 > /dev/null
}

# The names, kinds, modes and owners of everything; digests but of what comes from Debian's packages, whose versions may differ, and of
# the bill of materials, which names them.
listed() { # FOLDER
  (cd "$1" && find . -mindepth 1 -printf '%P %y %m %U:%G %l\n' | sort)
  (cd "$1" && find . -type f ! -name '*.so*' ! -path './usr/share/doc/*' ! -name sbom.spdx.json -print0 | sort -z | xargs -0 sha256sum)
}

configured() { # [LABEL...]: of the configuration of an image, without labels of the one who built it
  jq -S --args '.config | del(.Labels[$ARGS.positional[]])' "$@"
}

version=$("$build/bin/sidetrackctl" --version | cut -d ' ' -f 2)
revision=$(git rev-parse HEAD)
mkdir "$scratch/sources"
git ls-files -z | tar --create --null --files-from - | tar --extract --directory "$scratch/sources"
base_image
"${engine[@]}" bud --pull-never --isolation chroot --network host --file image/Containerfile --build-arg "VERSION=$version" \
  --build-arg "REVISION=$revision" --tag sidetrack "$scratch/sources" > "$scratch/log" 2>&1 || { tail -30 "$scratch/log" >&2; exit 1; }
container=$("${engine[@]}" from --pull-never localhost/sidetrack)
theirs=$("${engine[@]}" mount "$container")

python3 -B image/build.py --bin "$build/bin" --rootfs "$scratch/ours"
python3 -B image/build.py --bin "$build/bin" --out "$scratch/image" --revision "$revision" > /dev/null
mkdir "$scratch/oci"
tar -C "$scratch/oci" -xf "$scratch/image"/*.oci.tar
manifest=$(jq -r '.manifests[0].digest' "$scratch/oci/index.json")
config=$(jq -r .config.digest "$scratch/oci/blobs/${manifest/://}")
same=yes
diff <(listed "$scratch/ours") <(listed "$theirs") || same=
diff <(configured < "$scratch/oci/blobs/${config/://}") \
  <("${engine[@]}" inspect --type image localhost/sidetrack | jq .OCIv1 | configured io.buildah.version) || same=
[ "$same" ] || { echo "containerfile: differs from make image (< make image, > Containerfile)" >&2; exit 1; }
echo "containerfile: the image is that of make image: $(find "$theirs" -type f | wc -l) files, the same configuration"
