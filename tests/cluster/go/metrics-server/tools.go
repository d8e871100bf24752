//go:build tools

// Package tools pins the commands that the test cluster is built from.
package tools

import (
	_ "sigs.k8s.io/metrics-server/cmd/metrics-server"
)
