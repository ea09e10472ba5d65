package mapping

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/expr-lang/expr/builtin"
	"github.com/google/go-cmp/cmp"

	"forebay/internal/record"
	"forebay/sinks"
)

func sample() *record.Record {
	return &record.Record{
		Topic: "user-behavior-topic", Partition: 3, Offset: 42, Timestamp: 1_700_000_000_123,
		Key:   []byte("k"),
		Value: []byte(`p1|7|12|-1`),
		Headers: []record.Header{
			{Key: []byte("a"), Value: []byte("1")},
			{Key: []byte("a"), Value: []byte("2")},
			{Key: []byte("n"), Value: nil},
		},
	}
}

// eval gives the one column that source makes of rec.
func eval(t *testing.T, source string, rec *record.Record) (any, error) {
	t.Helper()
	p, err := Compile(Config{Columns: []Column{{"c", source}}})
	if err != nil {
		t.Fatalf("compiling %s: %v", source, err)
	}
	var row sinks.Row
	keep, err := p.Map(rec, &row)
	if err != nil {
		return nil, err
	}
	if !keep || len(row.Columns) != 1 {
		t.Fatalf("%s: keep %v, columns %v", source, keep, row.Columns)
	}
	return row.Columns[0], nil
}

func TestExpressions(t *testing.T) {
	js := sample()
	js.Value = []byte(`{"id":9007199254740993,"n":-0,"f":1.50,"big":18446744073709551615,"s":"\u00e9\ud83d\ude00\n","l":[1,2,{"b":1,"a":2}],"t":true,"x":null,"e":1e3}`)
	raw := sample()
	raw.Key, raw.Value = []byte{0xff, 0x00, 'x'}, []byte{}
	tomb := sample()
	tomb.Key, tomb.Value = nil, nil
	for _, tc := range []struct {
		source string
		rec    *record.Record
		want   any
	}{
		{`topic`, sample(), "user-behavior-topic"},
		{`partition`, sample(), int64(3)},
		{`offset + 1`, sample(), int64(43)},
		{`timestamp`, sample(), int64(1_700_000_000_123)},
		{`formatTime(timestamp)`, sample(), "2023-11-14T22:13:20.123Z"},
		{`formatTime(timestamp, "2006-01-02")`, sample(), "2023-11-14"},
		{`parseTime("2023-11-14T22:13:20.123+01:00")`, sample(), int64(1_699_996_400_123)},
		{`parseTime("2023-11-14", "2006-01-02")`, sample(), int64(1_699_920_000_000)},
		{`split(value, "|")[0]`, sample(), "p1"},
		{`let f = split(value, "|"); 8*int(f[1]) + 8*int(f[2]) + 10*int(f[3])`, sample(), int64(142)},
		{`split(value, "|", 2)[1]`, sample(), "7|12|-1"},
		{`fields(" a  b ")[1]`, sample(), "b"},
		{`value == nil`, tomb, true},
		{`value ?? "gone"`, tomb, "gone"},
		{`value == ""`, raw, true},
		{`key`, raw, "\xff\x00x"},
		{`bytes(key)`, raw, []byte("\xff\x00x")},
		{`key`, tomb, nil},
		{`header("a")`, sample(), "2"},
		{`header("n") == nil and header("absent") == nil`, sample(), true},
		{`headers[0][1] + headers[1][1]`, sample(), "12"},
		{`len(headers)`, sample(), int64(3)},
		{`json(value).id`, js, int64(9007199254740993)},
		{`json(value).f`, js, 1.5},
		{`json(value).e`, js, 1000.0},
		{`string(json(value).big)`, js, "18446744073709551615"},
		{`json(value).s`, js, "é😀\n"},
		{`json(value).l[2].b + 1`, js, int64(2)},
		{`json(value)?.nope?.deep`, js, nil},
		{`toJSON(json(value).l)`, js, `[1,2,{"a":2,"b":1}]`},
		{`toJSON(keys(json(value).l[2])) + toJSON(values(json(value).l[2]))`, js, `["a","b"][2,1]`},
		{`"id" in json(value)`, js, true},
		{`2 in json(value).l`, js, true},
		{`3 in 1..5 and not (9 in [1, 2])`, js, true},
		{`sum(split("1,2,3", ","), int(#))`, sample(), int64(6)},
		{`join(map(filter(1..6, # % 2 == 0), string(# * 10)), "-")`, sample(), "20-40-60"},
		{`reduce(1..5, #acc * #, 1)`, sample(), int64(120)},
		{`upper(topic[0:4]) + lower("AB")`, sample(), "USERab"},
		{`trim("  x ") + trimPrefix("ab", "a")`, sample(), "xb"},
		{`replace("a.b.c", ".", "/")`, sample(), "a/b/c"},
		{`repeat("ab", 2)`, sample(), "abab"},
		{`fromBase64(toBase64(key))`, raw, "\xff\x00x"},
		{`int("12") + int(3.9) + int(-3.9)`, sample(), int64(12)},
		{`float("1.5") + 1`, sample(), 2.5},
		{`7 / 2`, sample(), 3.5},
		{`string(1.0) + string(true) + string(7)`, sample(), "1true7"},
		{`value matches "^p[0-9]+[|]"`, sample(), true},
		{`value startsWith "p1" ? "yes" : "no"`, sample(), "yes"},
		{`max(3, 9, 4) - min(3, 9)`, sample(), int64(6)},
		{`int(json("7")) * json("6")`, sample(), int64(42)},
		{`json("2.5") * 2 - json("1")`, sample(), 4.0},
	} {
		t.Run(tc.source, func(t *testing.T) {
			got, err := eval(t, tc.source, tc.rec)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestRuntimeErrorsRefuseTheRecord(t *testing.T) {
	tomb := sample()
	tomb.Value = nil
	bad := sample()
	bad.Value = []byte{'"', 0xff, '"'}
	for _, tc := range []struct {
		source string
		rec    *record.Record
		want   string
	}{
		{`int(split(value, "|")[0])`, sample(), `mapping column "c": int("p1"): not a whole number (at character 1)`},
		{`split(value, "|")[9]`, sample(), `index out of range: 9 (array length is 4)`},
		{`split(value, "|")[0]`, tomb, `split(…) wants text and got nil`},
		{`trim(value)`, tomb, `wants string and got nil`},
		{`value + 1`, sample(), `cannot do text + an int`},
		{`json(value)`, bad, `json(…): not valid UTF-8`},
		{`json("{\"a\":1,}").a`, sample(), `json(…): no key at byte 7`},
		{`json("\"\\ud800\"")`, sample(), `half a character`},
		{`json("[1] 2")`, sample(), `something after the end`},
		{`json("01")`, sample(), `something after the end`},
		{`json("18446744073709551615")`, sample(), `"18446744073709551615" does not fit 64 bits; use string(…)`},
		{`json("18446744073709551615") + 1`, sample(), `cannot do an int beyond 64 bits + an int`},
		{`json("[1]")`, sample(), `gives a list; use toJSON(…)`},
		{`offset + 9223372036854775807`, sample(), `42 + 9223372036854775807 does not fit 64 bits`},
		{`reduce(1..100, #acc * #, 1)`, sample(), `does not fit 64 bits`},
		{`int(1e300)`, sample(), `int(1e+300): does not fit 64 bits`},
		{`float("NaN")`, sample(), `float("NaN"): not a finite number`},
		{`1 / (offset - 42)`, sample(), `gives +Inf, which no column holds`},
		{`offset % (offset - 42)`, sample(), `integer divide by zero`},
		{`string(value)`, tomb, `string(nil)`},
		{`parseTime(value)`, sample(), `parseTime("p1|7|12|-1"): not a time written as`},
		{`toJSON(key)`, &record.Record{Key: []byte{0xff}}, `toJSON(…): not valid UTF-8`},
	} {
		t.Run(tc.source, func(t *testing.T) {
			got, err := eval(t, tc.source, tc.rec)
			if err == nil {
				t.Fatalf("gave %v, want an error", got)
			}
			if !strings.HasPrefix(err.Error(), `mapping column "c": `) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q, want %q in it", err, tc.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error has lines: %q", err)
			}
		})
	}
}

func TestCompileErrors(t *testing.T) {
	col := func(s string) Config { return Config{Columns: []Column{{"c", s}}} }
	for _, tc := range []struct {
		name string
		c    Config
		want string
	}{
		{"empty", Config{}, `is empty: want when, value or columns`},
		{"unknown name", col(`vlaue`), `column "c": unknown name vlaue (line 1, character 1)`},
		{"unknown function", col(`1 + foo(1)`), `unknown name foo`},
		{"syntax", col(`1 +`), `unexpected token EOF (line 1, character 3)`},
		{"when no bool", Config{When: `offset`}, `when: expected bool, but got int`},
		{"value no text", Config{Value: `offset`}, `value: gives int, want text; use string(…) or toJSON(…)`},
		{"types", col(`topic * 2`), `invalid operation: * (mismatched types string and int)`},
		{"unnamed column", Config{Columns: []Column{{"", `1`}}}, `column 1 has no name`},
		{"column twice", Config{Columns: []Column{{"a", `1`}, {"A", `2`}}}, `column "A" is there twice`},
		{"no expression", Config{Columns: []Column{{"a", " "}}}, `column "a" has no expression`},
		{"pattern", col(`value matches "("`), `missing closing )`},
		{"pattern of a record", col(`value matches key`), `matches wants its pattern as a plain string`},
		{"list", col(`headers`), `column "c": gives a list; use toJSON(…) or take one element`},
		{"power", col(`2 ** 3`), `powers may differ`},
		{"env", col(`$env`), `$env is not available in mappings`},
		{"function as value", col(`string(header)`), `header is a function: call it`},
		{"builtin as value", col(`string(len)`), `len is a function: call it`},
		{"method", col(`headers.String()`), `only functions can be called`},
		{"value called", col(`value(1)`), `value is no function`},
		{"mistake among a function's arguments", col(`upper(trim(5))`), `line 1, character 7`},
		{"deep among arguments", col(`float(string(trim(topic - 1)))`), `invalid operation: -`},
		{"unknown name among arguments", col(`int(scroe)`), `unknown name scroe (line 1, character 5)`},
		{"unknown function among arguments", col(`string(spilt(value, "|")[1])`), `unknown name spilt (line 1, character 8)`},
		{"variable beyond its scope", col(`int((let n = 1; n + 1)) + n`), `unknown name n (line 1, character 27)`},
		{"variable of itself", col(`let n = int(n); n`), `unknown name n (line 1, character 13)`},
		{"all at once", Config{When: `1`, Columns: []Column{{"a", `x`}, {"b", `y`}}}, "\ncolumns[1]: column \"b\": unknown name y"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Compile(tc.c)
			if err == nil {
				t.Fatal("compiled")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q, want %q in it", err, tc.want)
			}
			if strings.Contains(err.Error(), "goroutine") {
				t.Errorf("a stack in %q", err)
			}
		})
	}
}

// Every builtin of expr was judged: allowed, replaced by a function of the same
// name, or refused. One that a new version adds fails here, and is refused until judged.
func TestEveryBuiltinIsJudged(t *testing.T) {
	refused := strings.Fields(`now date duration timezone fromJSON sortBy groupBy uniq toPairs fromPairs flatten splitAfter`)
	judged := map[string]string{}
	for _, n := range refused {
		judged[n] = "refused"
	}
	var r run
	for _, f := range r.functions() {
		if judged[f.name] != "" {
			t.Errorf("%s is refused and replaced", f.name)
		}
		judged[f.name] = "replaced"
	}
	for _, n := range builtin.Names {
		switch {
		case allowed(n) && judged[n] != "":
			t.Errorf("%s is allowed and %s", n, judged[n])
		case !allowed(n) && judged[n] == "":
			t.Errorf("%s is a builtin of expr that nobody judged", n)
		}
	}
	for _, n := range refused {
		args := `([1], #)`
		if n == "now" || n == "duration" || n == "date" || n == "timezone" || n == "fromJSON" || n == "toPairs" || n == "fromPairs" || n == "flatten" || n == "uniq" {
			args = `(value)`
		}
		if _, err := Compile(Config{Columns: []Column{{"c", n + args}}}); err == nil {
			t.Errorf("%s compiles", n)
		}
	}
}

func TestClockIsRefused(t *testing.T) {
	_, err := Compile(Config{Columns: []Column{{"at", `string(now())`}}})
	want := `columns[0]: column "at": now() would differ from attempt to attempt; use timestamp (line 1, character 8)`
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// Go gives maps in another order each time; no expression may show it.
func TestMapOrderDoesNotShow(t *testing.T) {
	rec := sample()
	var b strings.Builder
	for i := range 40 {
		fmt.Fprintf(&b, `,"k%d":%d`, i*7%40, i)
	}
	rec.Value = []byte("{" + b.String()[1:] + "}")
	for _, source := range []string{
		`toJSON(json(value))`, `toJSON(keys(json(value)))`, `toJSON(values(json(value)))`, `join(keys(json(value)), ",")`,
	} {
		first, err := eval(t, source, rec)
		if err != nil {
			t.Fatal(err)
		}
		for range 30 {
			if again, _ := eval(t, source, rec); again != first {
				t.Fatalf("%s gave %v, then %v", source, first, again)
			}
		}
	}
	for _, source := range []string{`string(json(value))`, `toJSON(map(json(value), #))`, `find(json(value), true)`, `first(json(value))`, `toJSON(reverse(json(value)))`} {
		if got, err := eval(t, source, rec); err == nil && got != nil {
			t.Errorf("%s gave %v, want a refusal or nil", source, got)
		}
	}
}

func TestBudgets(t *testing.T) {
	big := sample()
	big.Value = []byte(strings.Repeat("a", 1<<20))
	items := sample()
	items.Value = []byte("[" + strings.Repeat("1,", 1<<19) + "1]")
	for _, tc := range []struct {
		source string
		rec    *record.Record
	}{
		{`replace(value, "a", value)`, big},
		{`replace(value, "", value)`, big},
		{`join(split(value, ""), value)`, big},
		{`repeat(value, 1000000)`, big},
		{`reduce(1..60, #acc + #acc, value)`, big},
		{`let a = value + value; let b = a + a; let c = b + b; let d = c + c; let e = d + d; let f = e + e; f + f`, big},
		{`len(1..100000000)`, big},
		{`let r = 1..1000; sum(r, sum(r, sum(r, #)))`, sample()},
		{`let l = split(value, ""); count(l, # in l)`, big},
		{`len(map(1..100000, upper(value)))`, big},
		{`count(1..999999, value contains "ab")`, big},
		{`count(1..999999, value matches "(a|aa)+b")`, big},
		{`count(1..999999, indexOf(value, "b") > 0)`, big},
		{`count(1..999999, len(value) == #)`, big},
		{`count(1..999999, len(split(value, string(#))) > 9)`, big},
		{`count(1..999999, sum(json(value)) == #)`, items},
		{`len(map(1..100000, bytes(value)))`, big},
		{`toJSON(reduce(1..40, [#acc, #acc], [value]))`, sample()},
	} {
		t.Run(tc.source, func(t *testing.T) {
			got, err := eval(t, tc.source, tc.rec)
			if !errors.Is(err, ErrBudget) {
				t.Fatalf("gave %.40v, error %v; want %v", got, err, ErrBudget)
			}
		})
	}
	t.Run("a large honest record fits", func(t *testing.T) {
		for source, want := range map[string]int64{
			`count(json(value), # == 1)`:                         1<<19 + 1,
			`count(split(value, ","), # matches "^[[]?1")`:       1<<19 + 1,
			`len(filter(split(value, ","), trim(#) == "1"))`:     1<<19 - 1,
			`sum(split(value, ","), len(#))`:                     1<<19 + 3,
			`count(split(value, ","), hasPrefix(upper(#), "1"))`: 1 << 19,
		} {
			if got, err := eval(t, source, items); err != nil || got != want {
				t.Errorf("%s gave %v, %v; want %d", source, got, err, want)
			}
		}
	})
	t.Run("the next record starts afresh", func(t *testing.T) {
		p, err := Compile(Config{Columns: []Column{{"c", `repeat(value, 60)`}}})
		if err != nil {
			t.Fatal(err)
		}
		var row sinks.Row
		for range 3 {
			if _, err := p.Map(big, &row); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestWhenAndValue(t *testing.T) {
	p, err := Compile(Config{When: `value != nil and partition == 3`, Value: `upper(value)`})
	if err != nil {
		t.Fatal(err)
	}
	rec, row := sample(), sinks.Row{}
	if keep, err := p.Map(rec, &row); !keep || err != nil || string(row.Value) != "P1|7|12|-1" || len(row.Columns) != 0 || row.Record != rec {
		t.Fatalf("keep %v, %v, row %+v", keep, err, row)
	}
	rec.Value = nil
	if keep, err := p.Map(rec, &row); keep || err != nil {
		t.Fatalf("tombstone: keep %v, %v", keep, err)
	}
	rec.Value, rec.Partition = []byte("x"), 4
	if keep, err := p.Map(rec, &row); keep || err != nil {
		t.Fatalf("other partition: keep %v, %v", keep, err)
	}
	w, err := Compile(Config{When: `value`})
	if err != nil {
		t.Fatal(err)
	}
	if keep, err := w.Map(rec, &row); keep || err == nil || !strings.HasPrefix(err.Error(), "mapping when: ") {
		t.Fatalf("text as condition: keep %v, %v", keep, err)
	}
	n, err := Compile(Config{Value: `nil`})
	if err != nil {
		t.Fatal(err)
	}
	if keep, err := n.Map(rec, &row); !keep || err != nil || row.Value != nil {
		t.Fatalf("nil value: %v, %v, %v", keep, err, row.Value)
	}
}

func TestKinds(t *testing.T) {
	p, err := Compile(Config{Columns: []Column{
		{"a", `offset`}, {"b", `topic`}, {"c", `1.5 * offset`}, {"d", `offset > 1`}, {"e", `value`}, {"f", `bytes(value)`}, {"g", `8 * int(value) + 1`},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"int", "string", "float", "bool", "any", "bytes", "int"}, p.Kinds()); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(strings.Split("abcdefg", ""), p.Columns()); d != "" {
		t.Error(d)
	}
}

func TestMemoryOfARecordDoesNotOutliveIt(t *testing.T) {
	p, err := Compile(Config{Columns: []Column{{"a", `json(value).n`}, {"b", `split(value, ":")[0]`}}})
	if err != nil {
		t.Fatal(err)
	}
	var row sinks.Row
	buf := []byte(`{"n":1}`)
	rec := &record.Record{Value: buf}
	for i := range 9 {
		buf[5] = byte('1' + i)
		if _, err := p.Map(rec, &row); err != nil || row.Columns[0] != int64(i+1) {
			t.Fatalf("record %d gave %v, %v", i, row.Columns, err)
		}
	}
}

func TestClonesAreIndependent(t *testing.T) {
	p, err := Compile(Config{Columns: []Column{{"c", `header("h")`}}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 4)
	for i := range 4 {
		m := p.Clone()
		go func() {
			want := fmt.Sprint(i)
			rec := &record.Record{Headers: []record.Header{{Key: []byte("h"), Value: []byte(want)}}}
			var row sinks.Row
			for range 1000 {
				if _, err := m.Map(rec, &row); err != nil || row.Columns[0] != want {
					done <- fmt.Errorf("gave %v, %w", row.Columns, err)
					return
				}
			}
			done <- nil
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestCheckedInt(t *testing.T) {
	for _, tc := range []struct {
		op   byte
		x, y int
		ok   bool
	}{
		{'+', math.MaxInt, 0, true},
		{'+', math.MaxInt, 1, false},
		{'+', math.MinInt, -1, false},
		{'+', math.MinInt, math.MaxInt, true},
		{'-', math.MinInt, 0, true},
		{'-', math.MinInt, 1, false},
		{'-', 0, math.MinInt, false},
		{'-', -1, math.MinInt, true},
		{'*', math.MinInt, 1, true},
		{'*', math.MinInt, -1, false},
		{'*', -1, math.MinInt, false},
		{'*', math.MaxInt, -1, true},
		{'*', 1 << 32, 1 << 31, false},
		{'*', 0, math.MinInt, true},
		{'*', math.MinInt, 0, true},
	} {
		if _, err := checkedInt(tc.op, tc.x, tc.y); (err == nil) != tc.ok {
			t.Errorf("%d %c %d: %v, want ok %v", tc.x, tc.op, tc.y, err, tc.ok)
		}
	}
}
