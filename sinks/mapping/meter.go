package mapping

import (
	"reflect"

	"github.com/expr-lang/expr/ast"
)

// meter walks the body of a loop and makes what reads a whole text or list pay
// for its length, each time round. Outside loops everything runs once, and the length of the
// expression bounds it.
type meter struct{}

// Visit is called for each node of the body, children first.
func (meter) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.BuiltinNode:
		for i := range n.Arguments {
			if _, ok := n.Arguments[i].(*ast.PredicateNode); ok {
				return // a loop of its own, which counts its steps
			}
		}
		for i := range n.Arguments {
			pay(&n.Arguments[i], readName, readTextName)
		}
	case *ast.BinaryNode:
		switch n.Operator {
		case "matches": // far slower a byte than everything else
			pay(&n.Left, scanName, scanTextName)
		case "contains":
			pay(&n.Left, readName, readTextName)
		case "==", "!=", "<", "<=", ">", ">=":
			if !literal(n.Left) && !literal(n.Right) {
				pay(&n.Left, readName, readTextName)
			}
		}
	}
}

func literal(n ast.Node) bool {
	switch n.(type) {
	case *ast.NilNode, *ast.BoolNode, *ast.IntegerNode, *ast.FloatNode, *ast.StringNode:
		return true
	}
	return false
}

// pay puts a paid reading around an argument, unless it has one or its size is fixed.
func pay(node *ast.Node, name, textName string) {
	if c, ok := (*node).(*ast.CallNode); ok {
		if f, ok := c.Callee.(*ast.IdentifierNode); ok && (f.Value == name || f.Value == textName) {
			return
		}
	}
	switch kindOf(*node) {
	case reflect.Int, reflect.Float64, reflect.Bool:
		return
	case reflect.String:
		name = textName
	}
	if literal(*node) {
		return
	}
	c := call(name, *node)
	c.SetNature(*(*node).Nature())
	ast.Patch(node, c)
}
