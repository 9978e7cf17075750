# docker buildx bake -f docker/docker-bake.hcl [device | device-amd64 | device-arm64 | host | host-cuda]
variable "VERSION" { default = "0.1.0" }
variable "DEBIAN" { default = "docker.io/library/debian:bookworm-slim" }
# Certificates of a proxy that pip must trust, a file; empty: none
variable "CA" { default = "" }
# pip's options for torch
variable "TORCH_FROM" { default = "--index-url https://download.pytorch.org/whl/cpu" }

group "default" { targets = ["device-amd64", "device-arm64", "host"] }

target "_base" {
  context = "."
  args    = { DEBIAN = DEBIAN, VERSION = VERSION }
  secret  = CA == "" ? [] : ["id=ca,src=${CA}"]
}

target "_device" {
  inherits   = ["_base"]
  dockerfile = "docker/device.Dockerfile"
}

# one tag for both architectures, for a registry: docker buildx bake device --push
target "device" {
  inherits  = ["_device"]
  platforms = ["linux/amd64", "linux/arm64"]
  tags      = ["qhyvit-device:${VERSION}"]
}

target "device-amd64" {
  inherits  = ["_device"]
  platforms = ["linux/amd64"]
  tags      = ["qhyvit-device:${VERSION}-amd64"]
  output    = ["type=docker"]
}

target "device-arm64" {
  inherits  = ["_device"]
  platforms = ["linux/arm64"]
  tags      = ["qhyvit-device:${VERSION}-arm64"]
  output    = ["type=docker"]
}

target "_host" {
  inherits   = ["_base"]
  dockerfile = "docker/host.Dockerfile"
  output     = ["type=docker"]
}

target "host" {
  inherits = ["_host"]
  args     = { TORCH_FROM = TORCH_FROM }
  tags     = ["qhyvit:${VERSION}"]
}

target "host-cuda" {
  inherits = ["_host"]
  args     = { TORCH_FROM = "--index-url https://download.pytorch.org/whl/cu126" }
  tags     = ["qhyvit:${VERSION}-cuda"]
}
