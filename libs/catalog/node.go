package catalog

import (
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// nodeKind is what a value is in the text.
type nodeKind int

const (
	nullNode nodeKind = iota
	boolNode
	numberNode
	textNode
	listNode
	objectNode
)

// node is a document as its text gives it, YAML or JSON alike, before it has types. Numbers keep their text, because a
// YAML number may stand for it.
type node struct {
	kind nodeKind
	// text of a scalar: true and false for booleans.
	text string
	// keys stand beside items in an object and may repeat.
	keys  []string
	items []node
	// line counts from 1 in YAML, 0 in JSON.
	line int
}

// maxDepth bounds nesting: no document of ours comes near it, and readers recurse.
const maxDepth = 64

// String says what a value is, for errors.
func (n *node) String() string {
	switch n.kind {
	case nullNode:
		return "null"
	case boolNode, numberNode:
		return n.text
	case listNode:
		return "a list"
	case objectNode:
		return "a map"
	}
	const enough = 80
	if len(n.text) > enough {
		return fmt.Sprintf("%q…", n.text[:enough])
	}
	return fmt.Sprintf("%q", n.text)
}

// token gives a scalar as JSON; a number in a form that only YAML knows becomes its text.
func (n *node) token() jsontext.Token {
	switch n.kind {
	case nullNode:
		return jsontext.Null
	case boolNode:
		return jsontext.Bool(n.text == "true")
	}
	return jsontext.String(n.text)
}

// write gives the value as JSON, keys in the order of the text.
func (n *node) write(e *jsontext.Encoder) error {
	begin, end := jsontext.BeginArray, jsontext.EndArray
	switch n.kind {
	case numberNode:
		if value := jsontext.Value(n.text); value.IsValid() && value.Kind() == '0' {
			return e.WriteValue(value)
		}
		return e.WriteToken(n.token())
	case objectNode:
		begin, end = jsontext.BeginObject, jsontext.EndObject
	case listNode:
	default:
		return e.WriteToken(n.token())
	}
	if err := e.WriteToken(begin); err != nil {
		return err
	}
	for i := range n.items {
		if n.kind == objectNode {
			if err := e.WriteToken(jsontext.String(n.keys[i])); err != nil {
				return err
			}
		}
		if err := n.items[i].write(e); err != nil {
			return err
		}
	}
	return e.WriteToken(end)
}
