package mapping

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/file"
)

// allowed are the builtins of expr that give the same result for the same
// arguments, everywhere, in time and memory bounded by their arguments. It is a list of what
// was judged: a builtin that a later version of expr adds is refused until it stands here.
func allowed(name string) bool {
	switch name {
	case "all", "none", "any", "one", "filter", "map", "find", "findIndex", "findLast", "findLastIndex", "count", "sum", "reduce",
		"len", "type", "abs", "ceil", "floor", "round",
		"trim", "trimPrefix", "trimSuffix", "indexOf", "lastIndexOf", "hasPrefix", "hasSuffix",
		"max", "min", "mean", "median",
		"first", "last", "get", "take", "reverse", "concat", "sort",
		"bitand", "bitor", "bitxor", "bitnand", "bitshl", "bitshr", "bitushr", "bitnot":
		return true
	}
	return false
}

// refusal says why a builtin of expr cannot be used, and what can.
func refusal(name string) string {
	switch name {
	case "now":
		return "now() would differ from attempt to attempt; use timestamp"
	case "date", "duration", "timezone":
		return name + "() depends on the machine's time zones; use parseTime(text) and formatTime(ms), in UTC"
	case "fromJSON":
		return "fromJSON() makes floats of whole numbers; use json(text)"
	case "sortBy", "groupBy", "uniq", "toPairs", "fromPairs", "flatten", "splitAfter":
		return name + "() is not available in mappings"
	}
	return name + "() is not available in mappings"
}

// guard walks each expression before it is compiled: it refuses what is not
// deterministic or not bounded, notes which names of the record are used, and
// puts counted or checked functions where expr's own would be unbounded.
type guard struct {
	run       *run
	uses      map[string]bool
	functions []function
	errs      []error
	// loose are names of functions seen where no call is (yet).
	loose []*ast.IdentifierNode
}

// Visit is called by expr for each node, children first.
func (g *guard) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		g.identifier(n)
	case *ast.CallNode:
		callee, ok := n.Callee.(*ast.IdentifierNode)
		if !ok {
			g.refuse(n, "only functions can be called")
			return
		}
		if _, ok := environment()[callee.Value]; ok {
			g.refuse(n, "%s is no function", callee.Value)
		}
		g.loose = slices.DeleteFunc(g.loose, func(n *ast.IdentifierNode) bool { return n == callee })
	case *ast.BuiltinNode:
		if !allowed(n.Name) {
			g.refuse(n, "%s", refusal(n.Name))
		}
	case *ast.PredicateNode:
		ast.Walk(&n.Node, meter{})
		n.Node = &ast.SequenceNode{Nodes: []ast.Node{call(stepName), n.Node}}
	case *ast.BinaryNode:
		g.binary(node, n)
	}
}

func (g *guard) identifier(n *ast.IdentifierNode) {
	if n.Value == "$env" {
		g.refuse(n, "$env is not available in mappings")
		return
	}
	if _, ok := environment()[n.Value]; ok {
		g.uses[n.Value] = true
		return
	}
	_, isFunction := builtin.Index[n.Value]
	isFunction = isFunction || slices.ContainsFunc(g.functions, func(f function) bool { return f.name == n.Value })
	if isFunction {
		g.loose = append(g.loose, n)
	}
}

func (g *guard) binary(node *ast.Node, n *ast.BinaryNode) {
	switch n.Operator {
	case "**", "^":
		g.refuse(n, "powers may differ in the last digit between processors; multiply instead")
	case "matches":
		s, ok := n.Right.(*ast.StringNode)
		if !ok {
			g.refuse(n, "matches wants its pattern as a plain string, so that it is compiled once")
		} else if _, err := regexp.Compile(s.Value); err != nil {
			g.refuse(n, "%v", err)
		}
	case "in":
		r, isRange := n.Right.(*ast.BinaryNode)
		_, isArray := n.Right.(*ast.ArrayNode)
		if isArray || isRange && r.Operator == ".." {
			return // written out: expr looks it up or compares
		}
		ast.Patch(node, call(inName, n.Left, n.Right))
	case "+", "-", "*":
		if name := checked(n); name != "" {
			c := call(name, n.Left, n.Right)
			c.SetNature(*n.Nature()) // what stands above n still asks for its type
			ast.Patch(node, c)
		}
	}
}

// checked names the function that does n with bounds, or "" when expr's own
// operator is safe: floats neither overflow in silence nor grow.
func checked(n *ast.BinaryNode) string {
	l, r := kindOf(n.Left), kindOf(n.Right)
	switch {
	case l == reflect.Float64 || r == reflect.Float64:
		return ""
	case l == reflect.Int && r == reflect.Int:
		return intName(n.Operator)
	case n.Operator == "+" && l == reflect.String && r == reflect.String:
		return concatName
	case l == reflect.Interface || r == reflect.Interface:
		return anyName(n.Operator)
	}
	return "" // other pairs: the checker knows them, or refuses them
}

func kindOf(n ast.Node) reflect.Kind {
	t := n.Type()
	if t == nil {
		return reflect.Interface
	}
	return t.Kind()
}

func call(name string, args ...ast.Node) ast.Node {
	return &ast.CallNode{Callee: &ast.IdentifierNode{Value: name}, Arguments: args}
}

func (g *guard) refuse(n ast.Node, format string, args ...any) {
	g.errs = append(g.errs, &file.Error{Location: n.Location(), Line: 1, Column: n.Location().From, Message: fmt.Sprintf(format, args...)})
}

// err gives what was refused, if anything.
func (g *guard) err() error {
	for _, n := range g.loose {
		g.refuse(n, "%s is a function: call it", n.Value)
	}
	if len(g.errs) == 0 {
		return nil
	}
	return g.errs[0]
}
