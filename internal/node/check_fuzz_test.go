package node

import (
	"errors"
	"strings"
	"testing"

	"forebay/internal/config"
)

// FuzzParse: no configuration, however odd its sinks and mappings, is an end in panic,
// and what is wrong with one is always said as Problems.
func FuzzParse(f *testing.F) {
	const head = "[node]\ndataDir = \"data\"\n[receiver.kafka]\nbrokers = [\"h:1\"]\ntopics = [\"t\"]\n"
	for _, sinks := range []string{
		"[sinks.s.file]\ndir = \"out\"\nformat = \"csv\"\n[sinks.s.mapping]\ncolumns = [{ name = \"a\", value = \"1 +\" }, { name = \"a\", value = \"value\" }]\n",
		"[sinks.s.sqlite]\npath = \"p\"\ntable = \"t\"\nmode = \"accumulate\"\nkey = [\"\\u0000\"]\nupdate = { K = \"K + 1\", k = \"\" }\ntypes = { ſ = \"INTEGER\", s = \"\" }\n[sinks.s.mapping]\nwhen = \"(\"\n",
		"[sinks.s.stdout]\nformat = \"raw\"\n[sinks.s.mapping]\nvalue = 'upper(value)'\n[sinks.\"a.file\".file]\ndir = \"\"\n",
	} {
		f.Add(sinks)
	}
	f.Fuzz(func(t *testing.T, sinks string) {
		if strings.Contains(sinks, "${") { // would read what is on this machine
			t.Skip()
		}
		if _, err := Parse("fuzz.toml", []byte(head+sinks)); err != nil && !errors.Is(err, config.ErrInvalid) {
			t.Errorf("no Problems: %v", err)
		}
	})
}
