package mapping

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/record"
	"forebay/sinks"
)

// everything uses each name and most functions on whatever a record holds.
func everything() Config {
	c := Config{When: `topic != "" or offset >= 0`, Value: `value ?? "none"`}
	for i, source := range []string{
		`json(value)`, `json(value).a.b`, `json(key)?.x + 1`, `toJSON(json(value))`, `toJSON(headers)`, `toJSON(value)`,
		`int(value)`, `float(value)`, `string(json(value))`, `split(value, key)[0]`, `split(value, "|")[1]`, `fields(value)[0]`,
		`replace(value, key, key)`, `replace(value, key, value)`, `repeat(value, int(key))`, `join(split(value, ""), key)`,
		`value + key`, `value - key`, `value[1:3]`, `value[partition]`, `key[offset:timestamp]`, `len(value)`, `upper(value) + lower(key)`,
		`value matches "^(a|b)*$"`, `value contains "x"`, `key in json(value)`, `key in headers`, `header("a") == value`,
		`fromBase64(value)`, `toBase64(value)`, `parseTime(value)`, `formatTime(timestamp)`, `formatTime(offset * 1000, "2006")`,
		`sum(json(value), #)`, `map(json(value), # * 2)[0]`, `reduce(json(value), #acc + #, 0)`, `sort(json(value))[0]`, `max(json(value))`,
		`mean(json(value))`, `median(json(value))`, `get(json(value), "a")`, `take(json(value), int(key))`, `first(json(value))`, `last(headers)[1]`,
		`filter(headers, #[0] == "a")[0][1]`, `offset * timestamp`, `offset % partition`, `offset / partition`, `bitshl(offset, partition)`,
		`keys(json(value))[0]`, `values(json(value))[0]`, `abs(json(value))`, `round(json(value))`, `-json(value)`, `not json(value)`,
		`json(value) == json(key)`, `json(value) < json(key)`, `toJSON(1..json(key))`, `toJSON(concat(json(value), headers))`, `toJSON(reverse(json(value)))`,
		`trim(value, key)`, `indexOf(value, key)`, `type(json(value))`, `json(value) ? 1 : 2`, `bytes(json(value))`,
	} {
		c.Columns = append(c.Columns, Column{Name: string(rune('A'+i%26)) + strings.Repeat("x", i/26), Value: source})
	}
	return c
}

// FuzzMap: no record makes a mapping panic, and the second attempt at a record
// gives what the first gave, with another Program as after a restart.
func FuzzMap(f *testing.F) {
	f.Add("t", int32(0), int64(0), int64(0), []byte("k"), []byte(`{"a":{"b":1}}`), []byte("a"), []byte("v"))
	f.Add("", int32(-1), int64(-1), int64(-1<<63), []byte(nil), []byte(nil), []byte(nil), []byte(nil))
	f.Add("t", int32(7), int64(1<<62), int64(1<<62), []byte{0xff}, []byte{0xff, 0}, []byte{0xfe}, []byte{})
	f.Add("t", int32(1), int64(1), int64(1), []byte("9"), []byte(`[1,2.5,"x",[null,true],{"é":"\ud83d\ude00"}]`), []byte("a"), []byte("1"))
	f.Add("t", int32(1), int64(1), int64(1), []byte("-3"), []byte(`-9223372036854775808`), []byte("a"), []byte("1"))
	f.Add("t", int32(1), int64(1), int64(1), []byte(""), []byte(`[3,1,2]`), []byte("a"), []byte("1"))
	one := make([]*Program, 0, 64)
	again := make([]*Program, 0, 64)
	for _, col := range everything().Columns {
		p, err := Compile(Config{When: everything().When, Value: everything().Value, Columns: []Column{col}})
		if err != nil {
			f.Fatalf("%s: %v", col.Value, err)
		}
		one, again = append(one, p), append(again, p.Clone())
	}
	f.Fuzz(func(t *testing.T, topic string, part int32, off, ts int64, key, value, hk, hv []byte) {
		rec := &record.Record{
			Topic: topic, Partition: part, Offset: off, Timestamp: ts, Key: key, Value: value,
			Headers: []record.Header{{Key: hk, Value: hv}, {Key: []byte("a")}},
		}
		for i := range one {
			var r1, r2 sinks.Row
			k1, err1 := one[i].Map(rec, &r1)
			k2, err2 := again[i].Map(rec, &r2)
			if k1 != k2 || (err1 == nil) != (err2 == nil) || err1 != nil && err1.Error() != err2.Error() {
				t.Fatalf("%s: %v %v, then %v %v", one[i].config.Columns[0].Value, k1, err1, k2, err2)
			}
			if d := cmp.Diff(r1.Columns, r2.Columns); err1 == nil && d != "" {
				t.Fatalf("%s: %s", one[i].config.Columns[0].Value, d)
			}
			for _, c := range r1.Columns {
				switch c.(type) {
				case nil, bool, int64, float64, string, []byte:
				default:
					t.Fatalf("a column of type %T", c)
				}
			}
		}
	})
}

// FuzzJSON holds the reader against encoding/json: what it takes, that takes
// too, and what it writes means the same.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{
		`{}`, `[]`, `0`, `-0`, `-0.0`, `1e3`, `01`, `1.`, `.5`, `"a\u0041\ud83d\ude00"`, `"\ud800"`, `"\x"`, `[1,]`, `{"a":1,"a":2}`,
		`{"a":[true,false,null]}`, ` [ 1 , 2 ] `, `nul`, `"`, "\"\x01\"", `1e999`, `18446744073709551615`, strings.Repeat("[", 600), "\xef\xbb\xbf1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r := &run{}
		v, err := r.json(s)
		valid := json.Valid([]byte(s)) && utf8.ValidString(s)
		if err == nil && !valid {
			t.Fatalf("takes %q", s)
		}
		if err != nil {
			if why := err.Error(); valid && !strings.Contains(why, "half a character") && !strings.Contains(why, "too deep") && !strings.Contains(why, "out of range") {
				t.Fatalf("refuses %q: %v", s, err)
			}
			return
		}
		out, err := r.toJSON(v)
		if err != nil {
			t.Fatalf("cannot write %q: %v", s, err)
		}
		var want, got any
		if json.Unmarshal([]byte(s), &want) != nil || json.Unmarshal([]byte(out.(string)), &got) != nil {
			t.Skip("a number beyond float64") // json.Valid does not look at ranges
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("%q became %q: %s", s, out, d)
		}
	})
}

func BenchmarkMap(b *testing.B) {
	for name, c := range map[string]Config{
		"demo": {Columns: []Column{
			{"page", `split(value, "|")[0]`},
			{"score", `8 * int(split(value, "|")[1]) + 8 * int(split(value, "|")[2]) + 10 * int(split(value, "|")[3])`},
		}},
		"when": {When: `value != nil`},
		"json": {Columns: []Column{{"id", `json(value).id`}, {"name", `json(value).name`}}},
	} {
		b.Run(name, func(b *testing.B) {
			rec := sample()
			if name == "json" {
				rec.Value = []byte(`{"id":12345678,"name":"somebody","tags":["a","b"],"ok":true,"ratio":0.25}`)
			}
			p, err := Compile(c)
			if err != nil {
				b.Fatal(err)
			}
			var row sinks.Row
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.Map(rec, &row); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
