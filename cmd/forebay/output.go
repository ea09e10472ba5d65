package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"forebay/internal/admin"
)

// remote is the flags of every command that asks a running node.
type remote struct {
	address, token string
	output         output
}

func (r *remote) register(c *cobra.Command) {
	r.registerAddress(c)
	r.output.register(c)
	r.token = os.Getenv("FOREBAY_TOKEN")
}

func (r *remote) registerAddress(c *cobra.Command) {
	c.Flags().StringVar(&r.address, "addr", envOr("FOREBAY_ADDR", "127.0.0.1:8420"), "`ADDRESS` of the node's HTTP API (FOREBAY_ADDR)")
}

// output is the flag --output: looked at before anything is asked or changed.
type output string

const (
	outputTable output = "table"
	outputJSON  output = "json"
)

func (o *output) register(c *cobra.Command) {
	*o = outputTable
	c.Flags().VarP(o, "output", "o", "table or json")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// Set implements pflag.Value.
func (o *output) Set(text string) error {
	switch output(text) {
	case outputTable, outputJSON:
		*o = output(text)
		return nil
	}
	return errors.New("want table or json")
}

// String implements pflag.Value.
func (o *output) String() string { return string(*o) }

// Type implements pflag.Value.
func (o *output) Type() string { return "table|json" }

func (r *remote) client() *admin.Client { return admin.NewClient(r.address, r.token) }

func envOr(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

// show prints data as JSON or through fill, as the flag says.
func (o output) show(w io.Writer, data any, fill func(t *table)) error {
	if o == outputJSON {
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(data)
	}
	t := &table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	fill(t)
	return t.w.Flush()
}

// done says what a changing command did.
func (r *remote) done(w io.Writer, data any, format string, args ...any) error {
	return r.output.show(w, data, func(t *table) { t.line(format, args...) })
}

// table is aligned text; an empty cell prints as "-".
type table struct{ w *tabwriter.Writer }

func (t *table) row(cells ...any) {
	text := make([]string, len(cells))
	for i, cell := range cells {
		text[i] = plain(fmt.Sprint(cell))
		if text[i] == "" {
			text[i] = "-"
		}
	}
	fmt.Fprintln(t.w, strings.TrimRight(strings.Join(text, "\t"), "\t"))
}

// plain shows what a terminal or a table would take for a command, such as what a
// record holds that an error quotes.
func plain(text string) string {
	if !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsGraphic(r) }) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if unicode.IsGraphic(r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

func (t *table) line(format string, args ...any) { fmt.Fprintf(t.w, format+"\n", args...) }

func bytesText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	value, unit := float64(n), 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}

func timeText(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}
