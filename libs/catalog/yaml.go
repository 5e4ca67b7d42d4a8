package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxExpanded bounds what aliases may blow a document up to, in bytes of text and 16 for each value.
const maxExpanded = 8 << 20

// maxKeys bounds the keys of a YAML document: its parser's work grows with the square of their number (5 000 take 0.1 s),
// and documents have dozens.
const maxKeys = 5000

// maxPrefixes bounds anchors and tags: the parser recurses at each that stands before another.
const maxPrefixes = 1000

// maxMarks bounds the lines --- and ..., of which one document needs two.
const maxMarks = 8

// readYAML reads one YAML document. Repeated keys pass: that is a matter of shape. Aliases are replaced by what they name,
// within maxExpanded; merge keys and tags other than !!str are refused.
func readYAML(src []byte) (n *node, err error) {
	// The parser is the only foreign code that sees the operator's text; should it panic, that is an unreadable document.
	defer func() {
		if r := recover(); r != nil {
			n, err = nil, refuse(Malformed, 0, "", "not readable as YAML: %v", r)
		}
	}()
	if !utf8.Valid(src) {
		return nil, refuse(Malformed, 0, "", "not readable as YAML: it is not UTF-8")
	}
	if scanCost(src) > maxScanCost {
		return nil, refuse(Malformed, 0, "", "too many blank lines in a row, or tabs in one line")
	}
	tokens := lexer.Tokenize(string(bytes.TrimPrefix(src, []byte("\uFEFF"))))
	if err := boundTokens(tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, yamlError(err)
	}
	r := &yamlReader{anchors: map[string]*node{}}
	var root ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType || doc.Body.Type() == ast.DirectiveType {
			continue
		}
		if root != nil {
			return nil, refuse(Malformed, lineOf(doc.Body), "", "expected one document, found more")
		}
		root = doc.Body
	}
	if root == nil {
		return nil, refuse(Malformed, 0, "", "the document is empty")
	}
	value, err := r.read(root, 0)
	if err != nil {
		return nil, err
	}
	return &value, nil
}

// maxScanCost is about 0.2 s of the lexer's work: a thousand tabs in a line of 256 KiB, or 5 000 blank lines in a row.
const maxScanCost = 1 << 28

// scanCost estimates work of the lexer that grows with the square of the text: at each tab it may look at the rest of the
// line, at each blank line at those before it.
func scanCost(src []byte) int {
	cost, blank := 0, 0
	for line := range bytes.Lines(src) {
		cost += len(line) * bytes.Count(line, []byte("\t"))
	}
	for _, c := range src {
		switch c {
		case '\n', '\r':
			blank++
			cost += 16 * blank
		case ' ', '\t':
		default:
			blank = 0
		}
	}
	return cost
}

// boundTokens refuses what would make the parser recurse without bound (brackets within brackets, rows of indicators that
// each open a level: - - - -), or take too long.
func boundTokens(tokens token.Tokens) error {
	var brackets, row, keys, marks, prefixes int
	for _, t := range tokens {
		if t.Type == token.CollectEntryType || t.Prev != nil && t.Position.Line != t.Prev.Position.Line {
			row = 0
		}
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			brackets++
		case token.MappingEndType, token.SequenceEndType:
			brackets--
		case token.SequenceEntryType:
			row++
		case token.MappingKeyType, token.MappingValueType:
			row++
			keys++
		case token.TagType, token.AnchorType:
			prefixes++
		case token.DocumentHeaderType, token.DocumentEndType:
			marks++
		}
		message := ""
		switch {
		case brackets > maxDepth || row > maxDepth:
			message = fmt.Sprintf("nested deeper than the limit of %d levels", maxDepth)
		case keys > maxKeys:
			message = fmt.Sprintf("more than the limit of %d keys", maxKeys)
		case prefixes > maxPrefixes:
			message = fmt.Sprintf("more than the limit of %d anchors and tags", maxPrefixes)
		case marks > maxMarks:
			message = "expected one document, found more"
		case emptyEntry(t):
			message = "an entry of a list is empty"
		default:
			continue
		}
		return refuse(Malformed, t.Position.Line, "", "%s", message)
	}
	return nil
}

// emptyEntry finds a - with nothing after it before the next one: no list of ours holds nulls, and the parser's work grows
// with the square of their number.
func emptyEntry(t *token.Token) bool {
	next := t.Next
	return t.Type == token.SequenceEntryType && next != nil && next.Type == token.SequenceEntryType &&
		next.Position.Line > t.Position.Line && next.Position.Column <= t.Position.Column
}

func yamlError(err error) error {
	var syntax *yaml.SyntaxError
	if !errors.As(err, &syntax) {
		return refuse(Malformed, 0, "", "not readable as YAML: %v", err)
	}
	line := 0
	if t := syntax.GetToken(); t != nil && t.Position != nil {
		line = t.Position.Line
	}
	return refuse(Malformed, line, "", "not readable as YAML: %s", syntax.GetMessage())
}

func lineOf(n ast.Node) int {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 0
}

// yamlReader turns the parser's tree into ours.
type yamlReader struct {
	anchors  map[string]*node
	expanded int
}

func (r *yamlReader) read(n ast.Node, depth int) (node, error) {
	if n == nil {
		return node{}, nil
	}
	line := lineOf(n)
	if depth > maxDepth {
		return node{}, refuse(Malformed, line, "", "nested deeper than the limit of %d levels", maxDepth)
	}
	switch n := n.(type) {
	case *ast.NullNode:
		return r.scalar(nullNode, "", line)
	case *ast.BoolNode:
		return r.scalar(boolNode, fmt.Sprint(n.Value), line)
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return r.scalar(numberNode, n.GetToken().Value, line)
	case *ast.StringNode:
		return r.scalar(textNode, n.Value, line)
	case *ast.LiteralNode:
		return r.scalar(textNode, n.Value.Value, line)
	case *ast.SequenceNode:
		return r.list(n, line, depth)
	case *ast.MappingNode:
		return r.object(n.Values, line, depth)
	case *ast.MappingValueNode:
		return r.object([]*ast.MappingValueNode{n}, line, depth)
	case *ast.AnchorNode:
		value, err := r.read(n.Value, depth+1)
		r.anchors[n.Name.GetToken().Value] = &value
		return value, err
	case *ast.AliasNode:
		return r.alias(n.Value.GetToken().Value, line, depth)
	case *ast.TagNode:
		return r.tagged(n, line, depth)
	}
	return node{}, refuse(Malformed, line, "", "%s is not supported in documents", n.Type())
}

func (r *yamlReader) grow(size, line int) error {
	if r.expanded += 16 + size; r.expanded > maxExpanded {
		return refuse(Malformed, line, "", "larger than the limit of %d bytes with its aliases replaced", maxExpanded)
	}
	return nil
}

func (r *yamlReader) scalar(kind nodeKind, text string, line int) (node, error) {
	return node{kind: kind, text: text, line: line}, r.grow(len(text), line)
}

func (r *yamlReader) list(n *ast.SequenceNode, line, depth int) (node, error) {
	out := node{kind: listNode, line: line}
	for _, item := range n.Values {
		value, err := r.read(item, depth+1)
		if err != nil {
			return out, err
		}
		out.items = append(out.items, value)
	}
	return out, r.grow(0, line)
}

func (r *yamlReader) object(pairs []*ast.MappingValueNode, line, depth int) (node, error) {
	out := node{kind: objectNode, line: line}
	for _, pair := range pairs {
		key, err := r.key(pair.Key, depth)
		if err != nil {
			return out, err
		}
		value, err := r.read(pair.Value, depth+1)
		if err != nil {
			return out, err
		}
		value.line = key.line
		out.keys = append(out.keys, key.text)
		out.items = append(out.items, value)
	}
	return out, r.grow(0, line)
}

func (r *yamlReader) key(n ast.MapKeyNode, depth int) (node, error) {
	line := lineOf(n)
	if n.IsMergeKey() {
		return node{}, refuse(Malformed, line, "", "merge keys (<<) are not supported in documents")
	}
	var inner ast.Node = n
	if explicit, is := n.(*ast.MappingKeyNode); is {
		inner = explicit.Value
	}
	key, err := r.read(inner, depth+1)
	if err == nil && (key.kind == listNode || key.kind == objectNode || key.kind == nullNode) {
		err = refuse(Malformed, line, "", "expected a word as a key, got %s", &key)
	}
	key.line = line
	return key, err
}

func (r *yamlReader) alias(name string, line, depth int) (node, error) {
	value, known := r.anchors[name]
	if !known {
		return node{}, refuse(Malformed, line, "", "the alias *%s names no anchor before it", name)
	}
	return *value, r.count(value, line, depth)
}

// count adds what an alias stands for, and looks at how deep it goes.
func (r *yamlReader) count(n *node, line, depth int) error {
	if depth > maxDepth {
		return refuse(Malformed, line, "", "nested deeper than the limit of %d levels", maxDepth)
	}
	err := r.grow(len(n.text), line)
	for i := range n.items {
		if err == nil {
			err = r.count(&n.items[i], line, depth+1)
		}
	}
	return err
}

func (r *yamlReader) tagged(n *ast.TagNode, line, depth int) (node, error) {
	value, err := r.read(n.Value, depth+1)
	if err != nil {
		return value, err
	}
	if n.Start.Value != "!!str" || value.kind == listNode || value.kind == objectNode {
		return value, refuse(Malformed, line, "", "the tag %s is not supported in documents", n.Start.Value)
	}
	value.kind = textNode
	return value, nil
}
