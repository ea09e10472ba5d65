package config

import "time"

// Duration is a time.Duration written with its unit: "250ms", "5s", "24h", "7d".
type Duration time.Duration

// Size is a number of bytes written with its unit: "512KiB", "64MiB", "50GiB", "10MB", or "0".
type Size int64

// Secret is a string that never shows: its text forms are "[redacted]".
type Secret string
