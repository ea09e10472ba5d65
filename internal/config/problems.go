package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// ErrInvalid is what every error about a configuration's content wraps.
var ErrInvalid = errors.New("invalid configuration")

// Problem is one thing wrong with a configuration.
type Problem struct {
	File string
	// Line is counted from 1; 0 when the problem is of the file as a whole.
	Line    int
	Key     string
	Message string
}

// String gives "file:line: key: message".
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	if p.Key != "" {
		b.WriteString(": " + p.Key)
	}
	return b.String() + ": " + p.Message
}

// Problems is everything wrong with a configuration, in the order of the file.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

// Unwrap makes errors.Is(err, ErrInvalid) true.
func (p Problems) Unwrap() error { return ErrInvalid }

func (p Problems) sort() {
	slices.SortStableFunc(p, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
}

// source knows where the keys of a file stand, and gathers what is wrong there.
type source struct {
	file     string
	lines    map[string]int
	problems Problems
}

// add notes a problem of a key such as "sinks.pages.file.dir"; the line is that
// of the key or, where it is missing, of the nearest table around it.
func (s *source) add(key, format string, args ...any) {
	line := 0
	for at := key; at != "" && line == 0; {
		line = s.lines[at]
		at = parent(at)
	}
	s.problems = append(s.problems, Problem{s.file, line, key, fmt.Sprintf(format, args...)})
}

// unknownKey is how the message about a key begins that no version ever had.
const unknownKey = "unknown key"

// addUnlessFollows adds what the rules found, without what only follows from
// problems that are noted already: of the same key, of one around or within it, or
// of a required key whose name was perhaps mistyped in the same table.
func (s *source) addUnlessFollows(found Problems) {
	noted := s.problems
	follows := func(p Problem) bool {
		return slices.ContainsFunc(noted, func(n Problem) bool {
			return n.Key == p.Key || beneath(n.Key, p.Key) || beneath(p.Key, n.Key) ||
				parent(n.Key) == parent(p.Key) && strings.HasPrefix(n.Message, unknownKey) && strings.HasPrefix(p.Message, "is required")
		})
	}
	for _, p := range found {
		if !follows(p) {
			s.problems = append(s.problems, p)
		}
	}
}

// beneath tells whether a key lies somewhere in a table or list.
func beneath(key, table string) bool {
	rest, ok := strings.CutPrefix(key, table)
	return ok && rest != "" && (rest[0] == '.' || rest[0] == '[')
}

func parent(key string) string {
	if i := strings.LastIndexAny(key, ".["); i >= 0 {
		return key[:i]
	}
	return ""
}

func (s *source) err() error {
	if len(s.problems) == 0 {
		return nil
	}
	s.problems.sort()
	return s.problems
}

// index notes the line of every key. The text is known to parse.
func (s *source) index(text []byte) {
	s.lines = map[string]int{}
	var parser unstable.Parser
	parser.Reset(text)
	table := ""
	for parser.NextExpression() {
		expression := parser.Expression()
		switch expression.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = s.note(&parser, "", expression.Key())
		case unstable.KeyValue:
			s.noteValue(&parser, table, expression)
		default:
		}
	}
}

func (s *source) noteValue(parser *unstable.Parser, table string, keyValue *unstable.Node) {
	key := s.note(parser, table, keyValue.Key())
	s.noteChildren(parser, key, keyValue.Value())
}

func (s *source) noteChildren(parser *unstable.Parser, key string, value *unstable.Node) {
	children := value.Children()
	for i := 0; children.Next(); i++ {
		switch {
		case value.Kind == unstable.InlineTable:
			s.noteValue(parser, key, children.Node())
		case value.Kind == unstable.Array && children.Node().Kind == unstable.Comment:
			i--
		case value.Kind == unstable.Array:
			element := fmt.Sprintf("%s[%d]", key, i)
			if raw := children.Node().Raw; raw.Length > 0 {
				s.lines[element] = parser.Shape(raw).Start.Line
			}
			s.noteChildren(parser, element, children.Node())
		}
	}
}

func (s *source) note(parser *unstable.Parser, table string, parts unstable.Iterator) string {
	key := table
	for parts.Next() {
		if key != "" {
			key += "."
		}
		key += string(parts.Node().Data)
		if s.lines[key] == 0 {
			s.lines[key] = parser.Shape(parts.Node().Raw).Start.Line
		}
	}
	return key
}
