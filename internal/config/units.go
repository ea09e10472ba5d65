package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration written with its unit: "250ms", "5s", "24h", "7d".
type Duration time.Duration

// Size is a number of bytes written with its unit: "512KiB", "64MiB", "50GiB", "10MB", or "0".
type Size int64

// Secret is a string that never shows: its text forms are "[redacted]".
type Secret string

const redacted = "[redacted]"

// String hides the secret from logs.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// Format hides the secret from every verb, %#v and a wrong one included.
func (s Secret) Format(f fmt.State, verb rune) { fmt.Fprintf(f, fmt.FormatString(f, verb), s.String()) }

// MarshalText hides the secret from encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalText writes the duration as configuration has it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String gives the shortest form: "5s", not "0h0m5s".
func (d Duration) String() string {
	text := time.Duration(d).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{
	{"TiB", 1 << 40},
	{"GiB", 1 << 30},
	{"MiB", 1 << 20},
	{"KiB", 1 << 10},
	{"TB", 1e12},
	{"GB", 1e9},
	{"MB", 1e6},
	{"kB", 1e3},
	{"KB", 1e3},
	{"B", 1},
}

// MarshalText writes the size in the largest binary unit that is exact.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String gives the size in the largest binary unit that is exact.
func (s Size) String() string {
	for _, u := range sizeUnits[:4] {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.suffix
		}
	}
	if s == 0 {
		return "0"
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

func parseDuration(text string) (Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		const day = 24 * time.Hour
		if n, err := strconv.ParseInt(days, 10, 64); err == nil && n >= 0 && n <= int64(math.MaxInt64/day) {
			return Duration(time.Duration(n) * day), nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf(`%q is no duration: write a number with its unit, such as "250ms", "5s", "24h" or "7d"`, text)
	}
	return Duration(d), nil
}

func parseSize(text string) (Size, error) {
	wrong := fmt.Errorf(`%q is no size: write a number with its unit, such as "256KiB", "64MiB" or "50GiB"`, text)
	if text == "0" {
		return 0, nil
	}
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.bytes {
			return 0, wrong
		}
		return Size(n * u.bytes), nil
	}
	return 0, wrong
}
