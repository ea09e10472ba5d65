package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"forebay/internal/admin"
)

// remote is the flags of every command that asks a running node.
type remote struct {
	address, token, output string
}

func (r *remote) register(c *cobra.Command) {
	c.Flags().StringVar(&r.address, "addr", envOr("FOREBAY_ADDR", "127.0.0.1:8420"), "address of the node's HTTP API (FOREBAY_ADDR)")
	c.Flags().StringVarP(&r.output, "output", "o", "table", "table or json")
	r.token = os.Getenv("FOREBAY_TOKEN")
}

func (r *remote) client() *admin.Client { return admin.NewClient(r.address, r.token) }

func envOr(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

// show prints data as JSON or through table, as the flag says.
func (r *remote) show(w io.Writer, data any, table func(t *table)) error {
	return show(w, r.output, data, table)
}

func show(w io.Writer, format string, data any, fill func(t *table)) error {
	switch format {
	case "json":
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(data)
	case "table":
		t := &table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
		fill(t)
		return t.w.Flush()
	default:
		return usageError{fmt.Errorf("--output is table or json, not %q", format)}
	}
}

// table is aligned text; an empty cell prints as "-".
type table struct{ w *tabwriter.Writer }

func (t *table) row(cells ...any) {
	text := make([]string, len(cells))
	for i, cell := range cells {
		text[i] = fmt.Sprint(cell)
		if text[i] == "" {
			text[i] = "-"
		}
	}
	fmt.Fprintln(t.w, strings.TrimRight(strings.Join(text, "\t"), "\t"))
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
