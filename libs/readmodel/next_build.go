//go:build kanade_next_schema

package readmodel

import "kanade/libs/events"

// With the build tag kanade_next_schema the programs make and read a read model of another schema: one table more, which
// nobody asks. It is how the tests upgrade and roll back, with programs that differ in nothing else. Nothing that is
// installed is built with it.

// nextTables are the tables of the other schema that this version does not have.
func nextTables() []table {
	return []table{{noun: "kind", stream: events.StreamLog, revision: 1, relations: []*relation{&kinds}, begin: beginKinds}}
}

// kind counts the facts of one type.
type kind struct {
	name  string
	facts int
}

var kinds = relation{name: "kinds", key: 1, columns: []string{"type TEXT", "facts INTEGER"}}

func (k *kind) fields() []any { return []any{&k.name, &k.facts} }

type kindProjection struct{ *rows[kind, *kind] }

func beginKinds(db *database) projection { return kindProjection{newRows[kind](db, &kinds)} }

func (p kindProjection) Apply(f *fact) error {
	row, err := p.get(f.event.Type)
	if err != nil {
		return err
	}
	row.row = kind{name: f.event.Type, facts: row.row.facts + 1}
	p.put(row)
	return nil
}

func (p kindProjection) Flush() error { return p.flush() }
