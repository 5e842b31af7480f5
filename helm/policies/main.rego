# For conftest: every rule about workloads, and that a tag is what it was when it was released.
#
#   helm template … | conftest test --policy helm/policies --data release-manifest.json -
#
# release-manifest.json records each tag with its digest: {"release": {"ghcr.io/…/gin-sidecar": {"v1.2.0": "sha256:…"}}}.
package main

import rego.v1

deny contains message if some message in data.lib.gin_sidecar.deny

deny contains sprintf("%s: image %s: %s was released as %s", [one.where, one.container.image, tag, released]) if {
	some one in data.lib.gin_sidecar.containers
	some repository, tags in data.release
	some tag, released in tags
	startswith(one.container.image, sprintf("%s:%s@", [repository, tag]))
	not endswith(one.container.image, released)
}

deny contains sprintf("%s: image %s: this tag has not been released", [one.where, one.container.image]) if {
	some one in data.lib.gin_sidecar.containers
	some repository, tags in data.release
	startswith(one.container.image, sprintf("%s:", [repository]))
	not recorded(one.container.image, repository, tags)
}

recorded(image, repository, tags) if {
	some tag, _ in tags
	image == sprintf("%s:%s", [repository, tag])
}

recorded(image, repository, tags) if {
	some tag, _ in tags
	startswith(image, sprintf("%s:%s@", [repository, tag]))
}
