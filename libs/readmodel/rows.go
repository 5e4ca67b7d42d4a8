package readmodel

// rows is the part of one SQL table that a batch touches: each row is read at most once, changed in memory as often as
// the batch's facts say, and written once when the batch ends. What is written is a function of the facts applied, not
// of how they fell into batches.
type rows[R any, P interface {
	*R
	fields() []any
}] struct {
	db      *database
	rel     *relation
	entries map[string]*entry[R]
	touched []*entry[R]
}

type entry[R any] struct {
	row R
	// stored: the table has the row. live: it shall have it. dirty: it shall have it otherwise than it has.
	stored, live, dirty bool
	key                 string
}

func newRows[R any, P interface {
	*R
	fields() []any
}](db *database, rel *relation) *rows[R, P] {
	return &rows[R, P]{db: db, rel: rel, entries: map[string]*entry[R]{}}
}

// fetch reads the rows of many entries at once, which costs a fraction of as many gets where most of them do not exist.
func (r *rows[R, P]) fetch(keys []string) error {
	return r.db.each(r.rel, opSelectMany, func(scan func(...any) error) error {
		var row R
		var key string
		if err := scan(append([]any{&key}, P(&row).fields()...)...); err != nil {
			return err
		}
		e := r.entries[key]
		e.row, e.stored, e.live = row, true, true
		return nil
	}, textList(keys))
}

// get reads a row to look at or, through put, to change; live tells whether it exists.
func (r *rows[R, P]) get(key string) (*entry[R], error) {
	if e, ok := r.entries[key]; ok {
		return e, nil
	}
	e := &entry[R]{key: key}
	found, err := r.db.load(r.rel, P(&e.row).fields(), key)
	if err != nil {
		return nil, err
	}
	e.stored, e.live = found, found
	r.entries[key] = e
	return e, nil
}

// put says that the entry's row has been changed and shall be stored.
func (r *rows[R, P]) put(e *entry[R]) { e.live = true; r.touch(e) }

// remove says that the row shall be gone.
func (r *rows[R, P]) remove(e *entry[R]) {
	var none R
	e.row, e.live = none, false
	r.touch(e)
}

func (r *rows[R, P]) touch(e *entry[R]) {
	if !e.dirty {
		e.dirty = true
		r.touched = append(r.touched, e)
	}
}

// flush writes what was touched.
func (r *rows[R, P]) flush() error {
	inserted := insertion{db: r.db, rel: r.rel}
	for _, e := range r.touched {
		if err := e.write(&inserted, P(&e.row).fields()); err != nil {
			return err
		}
	}
	return inserted.flush()
}

func (e *entry[R]) write(to *insertion, fields []any) error {
	switch {
	case e.live && e.stored:
		return to.db.exec(to.rel, opUpdate, fields...)
	case e.live:
		return to.add(fields)
	case e.stored:
		return to.db.exec(to.rel, opDelete, e.key)
	default:
		return nil
	}
}
