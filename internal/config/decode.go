package config

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// decoder fills a Config from what the TOML parser gave. It goes on after each
// problem, so that all are told at once; with expand it replaces ${…} in strings.
type decoder struct {
	*source
	expand bool
	// dir is what ${file:…} paths are relative to.
	dir string
}

// planned are keys that the design has and this version has not, as patterns of
// whole keys.
var planned = regexp.MustCompile(`^(cluster|receiver\.backpressure|receiver\.kafka\.topicPattern|wal\.(onCorruption|scrubRate)|sinks\.[^.]+\.(postgres|mysql|s3|hdfs|webhdfs|kafka|clickhouse|opensearch|webhook|parquet|iceberg|concurrency|speculation))$`)

// decode sets target, a value of the Config, from a TOML value.
func (d *decoder) decode(key string, value any, target reflect.Value) {
	switch target.Interface().(type) {
	case Secret:
		d.decodeSecret(key, value, target)
		return
	case Duration:
		decodeText(d, key, value, target, parseDuration, `"5s"`)
		return
	case Size:
		decodeText(d, key, value, target, parseSize, `"64MiB"`)
		return
	}
	switch target.Kind() {
	case reflect.Pointer:
		fresh := reflect.New(target.Type().Elem())
		d.decode(key, value, fresh.Elem())
		target.Set(fresh)
	case reflect.Struct:
		if table, ok := value.(map[string]any); ok {
			d.decodeTable(key, table, target)
			return
		}
		d.mismatch(key, "a table", value)
	case reflect.Map:
		d.decodeMap(key, value, target)
	case reflect.Slice:
		d.decodeList(key, value, target)
	case reflect.String:
		if text, ok := value.(string); ok {
			target.SetString(d.expanded(key, text))
			return
		}
		d.mismatch(key, "a string", value)
	case reflect.Int64:
		if n, ok := value.(int64); ok {
			target.SetInt(n)
			return
		}
		d.mismatch(key, "a whole number", value)
	case reflect.Bool:
		if b, ok := value.(bool); ok {
			target.SetBool(b)
			return
		}
		d.mismatch(key, "true or false", value)
	default:
		panic(fmt.Sprintf("config: no way to decode %s", target.Type()))
	}
}

// decodeSecret keeps a secret out of a shown configuration; a reference is none.
func (d *decoder) decodeSecret(key string, value any, target reflect.Value) {
	text, ok := value.(string)
	switch {
	case !ok:
		d.mismatch(key, "a string", value)
	case d.expand:
		before := len(d.problems)
		secret := d.expanded(key, text)
		if secret == "" && text != "" && len(d.problems) == before {
			d.add(key, "%s gives nothing: set it, or leave the key out if no secret is wanted", text)
		}
		target.SetString(secret)
	case reference.ReplaceAllString(text, "") == "": // nothing but references
		target.SetString(text)
	default:
		target.SetString(redacted)
	}
}

func decodeText[T ~int64](d *decoder, key string, value any, target reflect.Value, parse func(string) (T, error), example string) {
	text, ok := value.(string)
	if n, number := value.(int64); number && n == 0 {
		text, ok = "0", true
	}
	if !ok {
		d.add(key, "wants a string with its unit, such as %s, not %v", example, value)
		return
	}
	parsed, err := parse(d.always(key, text))
	if err != nil {
		d.add(key, "%v", err)
		return
	}
	target.SetInt(int64(parsed))
}

func (d *decoder) mismatch(key, want string, value any) {
	names := map[reflect.Kind]string{
		reflect.String: "a string", reflect.Int64: "a whole number", reflect.Float64: "a decimal number",
		reflect.Bool: "true or false", reflect.Slice: "a list", reflect.Map: "a table",
	}
	found, ok := names[reflect.ValueOf(value).Kind()]
	if !ok {
		found = fmt.Sprintf("%v", value)
	}
	d.add(key, "wants %s, not %s", want, found)
}

func (d *decoder) decodeTable(key string, table map[string]any, target reflect.Value) {
	fields := map[string]reflect.Value{}
	for i := range target.NumField() {
		if name := target.Type().Field(i).Tag.Get("toml"); name != "" {
			fields[name] = target.Field(i)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(table)) {
		full := join(key, name)
		field, known := fields[name]
		switch {
		case known:
			d.decode(full, table[name], field)
		case planned.MatchString(full):
			d.add(full, "not in this version of Forebay")
		default:
			d.add(full, "%s%s", unknownKey, suggestion(name, slices.Sorted(maps.Keys(fields))))
		}
	}
}

func (d *decoder) decodeMap(key string, value any, target reflect.Value) {
	table, ok := value.(map[string]any)
	if !ok {
		d.mismatch(key, "a table", value)
		return
	}
	fresh := reflect.MakeMap(target.Type())
	for _, name := range slices.Sorted(maps.Keys(table)) {
		element := reflect.New(target.Type().Elem()).Elem()
		if sink, ok := element.Addr().Interface().(*Sink); ok {
			*sink = defaultSink()
		}
		d.decode(join(key, name), table[name], element)
		fresh.SetMapIndex(reflect.ValueOf(name), element)
	}
	target.Set(fresh)
}

func (d *decoder) decodeList(key string, value any, target reflect.Value) {
	list, ok := value.([]any)
	if !ok {
		d.mismatch(key, "a list", value)
		return
	}
	fresh := reflect.MakeSlice(target.Type(), len(list), len(list))
	for i, element := range list {
		d.decode(fmt.Sprintf("%s[%d]", key, i), element, fresh.Index(i))
	}
	target.Set(fresh)
}

func join(table, name string) string {
	if table == "" {
		return name
	}
	return table + "." + name
}

var reference = regexp.MustCompile(`\$\{([a-z]*):?([^}]*)\}`)

// expanded replaces ${env:NAME} and ${file:path}, unless the decoder shows the
// configuration as it was written.
func (d *decoder) expanded(key, text string) string {
	if !d.expand {
		return text
	}
	return d.always(key, text)
}

func (d *decoder) always(key, text string) string {
	return reference.ReplaceAllStringFunc(text, func(match string) string {
		parts := reference.FindStringSubmatch(match)
		switch kind, name := parts[1], parts[2]; kind {
		case "env":
			value, ok := os.LookupEnv(name)
			if !ok {
				d.add(key, "the environment variable %s is not set", name)
			}
			return value
		case "file":
			if !filepath.IsAbs(name) {
				name = filepath.Join(d.dir, name)
			}
			value, err := os.ReadFile(name)
			if err != nil {
				d.add(key, "%s cannot be read: %v; make the file, or correct the path", match, err)
			}
			return strings.TrimRight(string(value), "\r\n")
		default:
			d.add(key, "%s is neither ${env:NAME} nor ${file:path}", match)
			return match
		}
	})
}
