package readmodel

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
)

// ErrCursor says that a text is no cursor of the list that it was given to. To be tested with errors.Is.
var ErrCursor = errors.New("not a cursor of this list")

// Page is where a list goes on and how far.
//
// Every list has an order in which no two rows are equal, and a page begins behind the last row of the page before, not
// at a number of rows: rows that come meanwhile neither repeat nor hide others, and a page far down costs what the first
// one does.
type Page struct {
	// After is the cursor that the page before gave; empty: from the start.
	After string
	// Limit is how many rows at most; All: no limit, 0: none.
	Limit int
}

// order names the order of a list in its cursors, so that a cursor of another list, or of another order of the same one,
// is refused instead of understood in some other way. The name is for ever; another key is another name.
type order string

// cursor is opaque: a JSON array of the order and the key, in base64.
func (o order) cursor(key ...any) string {
	text, err := json.Marshal(append([]any{o}, key...))
	if err != nil { // keys are texts and whole numbers
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// read puts the key of a cursor into pointers; ErrCursor.
func (o order) read(cursor string, key ...any) error {
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return fmt.Errorf("%w: it is not whole", ErrCursor)
	}
	var parts []json.RawMessage
	var name order
	if json.Unmarshal(text, &parts) != nil || len(parts) == 0 || json.Unmarshal(parts[0], &name) != nil {
		return fmt.Errorf("%w: it is not whole", ErrCursor)
	}
	if name != o {
		return fmt.Errorf("%w: it continues the list %q, this one is %q", ErrCursor, name, o)
	}
	if len(parts) != 1+len(key) {
		return fmt.Errorf("%w: it is not whole", ErrCursor)
	}
	for i, k := range key {
		if string(parts[1+i]) == "null" || json.Unmarshal(parts[1+i], k) != nil {
			return fmt.Errorf("%w: it is not whole", ErrCursor)
		}
	}
	return nil
}

// begin is read for a page: without a cursor the key stays what it is, the place before the first row.
func (p Page) begin(o order, key ...any) error {
	if p.After == "" {
		return nil
	}
	return o.read(p.After, key...)
}

// more is the limit of a query that also finds out whether rows follow the page.
func (p Page) more() int {
	if p.Limit <= 0 {
		return p.Limit
	}
	return p.Limit + 1
}

// cut takes off what more has found, and gives the cursor behind the last row that stays; empty on the last page.
func cut[R any](rows []R, p Page, cursor func(*R) string) ([]R, string) {
	if p.Limit <= 0 || len(rows) <= p.Limit {
		return rows, ""
	}
	rows = rows[:p.Limit]
	return rows, cursor(&rows[p.Limit-1])
}
