package catalog

import (
	"bytes"
	"errors"
	"io"

	"github.com/go-json-experiment/json/jsontext"
)

// readJSON reads one JSON value and nothing after it. Repeated keys pass: that is a matter of shape.
func readJSON(src []byte) (*node, error) {
	d := jsontext.NewDecoder(bytes.NewBuffer(src), jsontext.AllowDuplicateNames(true))
	n, err := readJSONValue(d, 0)
	if err == nil {
		if _, err = d.ReadToken(); err == nil {
			err = errors.New("text after the end of the document")
		} else if errors.Is(err, io.EOF) {
			return &n, nil
		}
	}
	var refused *Error
	if errors.As(err, &refused) {
		return nil, refused
	}
	if len(bytes.TrimSpace(src)) == 0 {
		return nil, refuse(Malformed, 0, "", "the document is empty")
	}
	return nil, refuse(Malformed, 0, "", "not readable as JSON: %s", syntaxMessage(err))
}

// syntaxMessage drops the library's name, which tells an operator nothing.
func syntaxMessage(err error) string {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "it ends too early"
	}
	return string(bytes.TrimPrefix([]byte(err.Error()), []byte("jsontext: ")))
}

func readJSONValue(d *jsontext.Decoder, depth int) (node, error) {
	if depth > maxDepth {
		return node{}, refuse(Malformed, 0, "", "nested deeper than the limit of %d levels", maxDepth)
	}
	token, err := d.ReadToken()
	if err != nil {
		return node{}, err
	}
	switch token.Kind() {
	case 'n':
		return node{}, nil
	case 't', 'f':
		return node{kind: boolNode, text: token.String()}, nil
	case '0':
		return node{kind: numberNode, text: token.String()}, nil
	case '"':
		return node{kind: textNode, text: token.String()}, nil
	case '[':
		return readJSONItems(d, node{kind: listNode}, ']', depth)
	}
	return readJSONItems(d, node{kind: objectNode}, '}', depth)
}

func readJSONItems(d *jsontext.Decoder, n node, end jsontext.Kind, depth int) (node, error) {
	for d.PeekKind() != end {
		if n.kind == objectNode {
			key, err := d.ReadToken()
			if err != nil {
				return n, err
			}
			n.keys = append(n.keys, key.String())
		}
		item, err := readJSONValue(d, depth+1)
		if err != nil {
			return n, err
		}
		n.items = append(n.items, item)
	}
	_, err := d.ReadToken()
	return n, err
}
