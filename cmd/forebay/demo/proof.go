package demo

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	_ "modernc.org/sqlite" // the driver "sqlite", to read what the sink wrote
)

// page is a row of the popularity table; the score is in whole tenths.
type page struct {
	name  string
	score int64
}

// topPages reads the table, best first; none while it does not exist.
func topPages(ctx context.Context, path string, limit int) ([]page, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, nil
	}
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro&_pragma=busy_timeout(2000)")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, "SELECT page, score FROM popularity ORDER BY score DESC, page LIMIT ?", limit)
	if err != nil {
		return nil, nil // not made yet
	}
	defer rows.Close()
	var top []page
	for rows.Next() {
		var p page
		if err := rows.Scan(&p.name, &p.score); err != nil {
			return nil, err
		}
		top = append(top, p)
	}
	return top, rows.Err()
}

// proof compares what the sinks hold with the producer's own account.
type proof struct {
	files, records int
	pages          int
}

// prove checks that every confirmed line is in the files once, byte for byte and
// in order, and that the popularity equals the producer's own arithmetic.
func prove(ctx context.Context, p *producer, g *gateway) (proof, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	result, err := proveFiles(p, g.files())
	if err != nil {
		return result, err
	}
	table, err := topPages(ctx, g.database(), -1)
	if err != nil {
		return result, err
	}
	result.pages = len(table)
	var errs []error
	if len(table) != len(p.scores) {
		errs = append(errs, fmt.Errorf("the table has %d pages, the producer %d", len(table), len(p.scores)))
	}
	for _, row := range table {
		if want := p.scores[row.name]; row.score != want {
			errs = append(errs, fmt.Errorf("%s: the table says %d tenths, the producer %d", row.name, row.score, want))
		}
	}
	return result, errors.Join(errs...)
}

func proveFiles(p *producer, dir string) (proof, error) {
	var result proof
	names, err := filepath.Glob(filepath.Join(dir, "batch-*.jsonl"))
	if err != nil {
		return result, err
	}
	slices.Sort(names)
	next := map[int32]int64{}
	for _, name := range names {
		result.files++
		if err := proveFile(p, name, next, &result); err != nil {
			return result, err
		}
	}
	if int64(result.records) != p.sent {
		return result, fmt.Errorf("the files hold %d records, Kafka confirmed %d", result.records, p.sent)
	}
	return result, nil
}

// proveFile checks one file; next holds the offset that each partition must go on with.
func proveFile(p *producer, name string, next map[int32]int64, result *proof) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var r struct {
			Partition int32
			Offset    int64
			Value     string
		}
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if r.Offset != next[r.Partition] {
			return fmt.Errorf("%s: partition %d has offset %d where %d is due", name, r.Partition, r.Offset, next[r.Partition])
		}
		if want := p.lines[r.Partition][r.Offset]; r.Value != want {
			return fmt.Errorf("%s: partition %d offset %d holds %q, the producer sent %q", name, r.Partition, r.Offset, r.Value, want)
		}
		next[r.Partition]++
		result.records++
	}
	return lines.Err()
}
