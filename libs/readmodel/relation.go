package readmodel

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"kanade/libs/events"
)

// relation is one SQL table. Its columns stand in the order of its row's fields; the first key of them are the primary
// key. Nothing is ever NULL but what a column's declaration calls so.
type relation struct {
	name    string
	key     int
	columns []string
	indexes []string
	// rowid keeps SQLite's own row number: right where rows bear long texts, which a table ordered by its primary key
	// would carry into the inner pages of the tree.
	rowid bool
}

func (r *relation) columnNames() []string {
	names := make([]string, len(r.columns))
	for i, c := range r.columns {
		names[i], _, _ = strings.Cut(c, " ")
	}
	return names
}

func (r *relation) schema() string {
	var b strings.Builder
	names := r.columnNames()
	fmt.Fprintf(&b, "CREATE TABLE %s (", r.name)
	for _, c := range r.columns {
		b.WriteString(c)
		if !strings.HasSuffix(c, " NULL") {
			b.WriteString(" NOT NULL")
		}
		b.WriteString(", ")
	}
	fmt.Fprintf(&b, "PRIMARY KEY (%s))", strings.Join(names[:r.key], ", "))
	if !r.rowid {
		b.WriteString(" WITHOUT ROWID")
	}
	b.WriteString(";\n")
	for _, ix := range r.indexes {
		b.WriteString(ix + ";\n")
	}
	return b.String()
}

// list names all columns for a query, in the order of the row's fields, each with the alias.
func (r *relation) list(alias string) string {
	return alias + "." + strings.Join(r.columnNames(), ", "+alias+".")
}

// all is the beginning of a query for whole rows.
func (r *relation) all() string { return "SELECT " + r.list(r.name) + " FROM " + r.name }

// operation on the rows of a relation, as a prepared statement.
type operation byte

const (
	opSelect operation = iota
	opSelectPrefix
	opSelectRange
	opSelectMany
	opInsert
	opInsertMany
	opInsertEach
	opUpdate
	opUpdateEach
	opDelete
	opDeletePrefix
	opSendWave // of targets only
)

// sql of an operation. The "prefix" ones match the first key column only; opSelectRange takes the key and, once more, its
// last column: from the one, inclusive, to the other, exclusive, in that order. opSelectMany takes a JSON array of keys and
// puts the key before the fields. opInsertMany takes insertMany rows, opUpdate the fields in their own order, the key first.
// The "each" ones are opInsert and opUpdate for many rows that differ in the last column of the key only, in whose place
// they take a JSON array.
//
// What can't be written fails without taking its own statement back (OR FAIL): whoever fails rolls the transaction back, and
// for one statement of many rows SQLite would keep a copy of every page that it changes, a tenth of the writer's time.
func (r *relation) sql(op operation) string {
	names := r.columnNames()
	match := func(keys []string) string {
		terms := make([]string, len(keys))
		for i, k := range keys {
			terms[i] = fmt.Sprintf("%s = ?%d", k, i+1)
		}
		return strings.Join(terms, " AND ")
	}
	all := strings.Join(names, ", ")
	switch op {
	case opSelect:
		return "SELECT " + all + " FROM " + r.name + " WHERE " + match(names[:r.key])
	case opSelectPrefix:
		return "SELECT " + all + " FROM " + r.name + " WHERE " + match(names[:1])
	case opSelectRange:
		last := names[r.key-1]
		return "SELECT " + all + " FROM " + r.name + " WHERE " + match(names[:r.key-1]) +
			fmt.Sprintf(" AND %s >= ?%d AND %s < ?%d ORDER BY %s", last, r.key, last, r.key+1, last)
	case opSelectMany:
		return "SELECT " + names[0] + ", " + all + " FROM " + r.name + " WHERE " + names[0] + " IN (SELECT value FROM json_each(?1))"
	case opInsert, opInsertMany:
		row := "(?" + strings.Repeat(", ?", len(names)-1) + ")"
		if op == opInsertMany {
			row += strings.Repeat(", "+row, insertMany-1)
		}
		return "INSERT OR FAIL INTO " + r.name + " (" + all + ") VALUES " + row
	case opInsertEach:
		row := make([]string, len(names))
		for i := range names {
			row[i] = fmt.Sprintf("?%d", i+1)
		}
		array := row[r.key-1]
		row[r.key-1] = "value"
		return "INSERT OR FAIL INTO " + r.name + " (" + all + ") SELECT " + strings.Join(row, ", ") + " FROM json_each(" + array + ")"
	case opUpdate, opUpdateEach:
		sets := make([]string, 0, len(names)-r.key)
		for i := r.key; i < len(names); i++ {
			sets = append(sets, fmt.Sprintf("%s = ?%d", names[i], i+1))
		}
		where := match(names[:r.key])
		if op == opUpdateEach {
			where = fmt.Sprintf("%s AND %s IN (SELECT value FROM json_each(?%d))", match(names[:r.key-1]), names[r.key-1], r.key)
		}
		return "UPDATE OR FAIL " + r.name + " SET " + strings.Join(sets, ", ") + " WHERE " + where
	case opSendWave:
		return sendWave
	case opDelete:
		return "DELETE FROM " + r.name + " WHERE " + match(names[:r.key])
	default:
		return "DELETE FROM " + r.name + " WHERE " + match(names[:1])
	}
}

// database is the writer's one connection with its prepared statements. Not for concurrent use. Its statements are not
// cancelled midway: a batch is bounded by its size.
type database struct {
	conn    *sql.Conn
	queries map[statement]*sql.Stmt
	// changes are the driver's own statements, and args the values of one: what database/sql does for each value on its way to
	// the driver would be a tenth of the writer's time, and of all that is allocated.
	changes map[statement]driver.StmtExecContext
	args    []driver.NamedValue
	// retain is how long rows are kept; forgotten is the horizon of history up to which nothing is left to be forgotten, zero
	// where that is not known.
	retain    events.Retain
	forgotten time.Time
	// careful: the batch has been tried, and a row that it took for new was there.
	careful bool
}

type statement struct {
	rel *relation
	op  operation
}

// close ends the statements and the connection.
func (d *database) close() error {
	var errs []error
	for _, s := range d.queries {
		errs = append(errs, s.Close())
	}
	err := d.conn.Raw(func(any) error {
		for _, s := range d.changes {
			errs = append(errs, s.(driver.Stmt).Close())
		}
		return nil
	})
	return errors.Join(append(errs, err, d.conn.Close())...)
}

func (d *database) query(r *relation, op operation) (*sql.Stmt, error) {
	key := statement{r, op}
	if s, ok := d.queries[key]; ok {
		return s, nil
	}
	s, err := d.conn.PrepareContext(context.Background(), r.sql(op))
	if err != nil {
		return nil, fmt.Errorf("prepare statement of table %s: %w", r.name, err)
	}
	d.queries[key] = s
	return s, nil
}

func (d *database) exec(r *relation, op operation, args ...any) error {
	_, err := d.change(r, op, args...)
	return err
}

// change is exec that tells how many rows it changed.
func (d *database) change(r *relation, op operation, args ...any) (changed int, err error) {
	d.args = d.args[:0]
	for i, arg := range args {
		v, err := value(arg)
		if err != nil {
			return 0, fmt.Errorf("write table %s: value %d: %w", r.name, i+1, err)
		}
		d.args = append(d.args, driver.NamedValue{Ordinal: i + 1, Value: v})
	}
	err = d.conn.Raw(func(conn any) error {
		key := statement{r, op}
		s, ok := d.changes[key]
		if !ok {
			prepared, err := conn.(driver.ConnPrepareContext).PrepareContext(context.Background(), r.sql(op))
			if err != nil {
				return err
			}
			s = prepared.(driver.StmtExecContext)
			d.changes[key] = s
		}
		done, err := s.ExecContext(context.Background(), d.args)
		if err != nil {
			return err
		}
		n, err := done.RowsAffected()
		changed = int(n)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("write table %s: %w", r.name, err)
	}
	return changed, nil
}

// each reads the rows that an operation finds.
func (d *database) each(r *relation, op operation, row func(scan func(...any) error) error, args ...any) error {
	s, err := d.query(r, op)
	if err != nil {
		return err
	}
	found, err := s.QueryContext(context.Background(), args...)
	if err != nil {
		return fmt.Errorf("read table %s: %w", r.name, err)
	}
	defer found.Close()
	for found.Next() {
		if err := row(found.Scan); err != nil {
			return fmt.Errorf("read table %s: %w", r.name, err)
		}
	}
	if err := found.Err(); err != nil {
		return fmt.Errorf("read table %s: %w", r.name, err)
	}
	return nil
}

// insertMany is how many rows one statement inserts where there are as many: with one a row, a fifth of the time goes to
// the beginning and the end of statements.
const insertMany = 16

// insertion gathers new rows of a relation.
type insertion struct {
	db     *database
	rel    *relation
	fields []any
}

// add writes the row, or keeps it until there are more.
func (i *insertion) add(fields []any) error {
	i.fields = append(i.fields, fields...)
	if len(i.fields) < insertMany*len(fields) {
		return nil
	}
	err := i.db.exec(i.rel, opInsertMany, i.fields...)
	i.fields = i.fields[:0]
	return err
}

// flush writes the rows that are kept.
func (i *insertion) flush() error {
	for row := range slices.Chunk(i.fields, len(i.rel.columns)) {
		if err := i.db.exec(i.rel, opInsert, row...); err != nil {
			return err
		}
	}
	i.fields = i.fields[:0]
	return nil
}

// value is what the driver takes for a field of a row, or for the pointer to one: the driver's interface would find the value
// behind a pointer by reflection, at a tenth of the cost of the row.
func value(field any) (driver.Value, error) {
	switch f := field.(type) {
	case string:
		return f, nil
	case *string:
		return *f, nil
	case *int:
		return int64(*f), nil
	case *int64:
		return *f, nil
	case *bool:
		return *f, nil
	case *events.TargetState:
		return string(*f), nil
	case *events.Outcome:
		return string(*f), nil
	case *events.Actor:
		return string(*f), nil
	case nanos:
		return toNanos(*f.t), nil
	case sequence:
		return f.Value()
	default:
		return driver.DefaultParameterConverter.ConvertValue(f)
	}
}

// load reads one row into fields; false when there is none.
func (d *database) load(r *relation, fields []any, key ...any) (bool, error) {
	s, err := d.query(r, opSelect)
	if err != nil {
		return false, err
	}
	err = s.QueryRowContext(context.Background(), key...).Scan(fields...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read table %s: %w", r.name, err)
	}
	return true, nil
}

// sequence stores a message's number, bounded to what SQLite can store: a fact may claim any.
type sequence struct{ n *uint64 }

func (s sequence) Value() (driver.Value, error) { return int64(min(*s.n, math.MaxInt64)), nil }

func (s sequence) Scan(src any) error {
	v, ok := src.(int64)
	if !ok {
		return fmt.Errorf("sequence is stored as %T", src)
	}
	*s.n = uint64(v)
	return nil
}

// textList goes into a query as a JSON array, for json_each.
type textList []string

// Value implements driver.Valuer.
func (l textList) Value() (driver.Value, error) {
	text, err := json.Marshal([]string(l))
	return string(text), err
}

// nanos stores a time as Unix nanoseconds, the zero time as 0. What lies outside the years 1678 to 2262 is stored as
// the nearest that can be.
type nanos struct{ t *time.Time }

func (n nanos) Value() (driver.Value, error) { return toNanos(*n.t), nil }

func (n nanos) Scan(src any) error {
	v, ok := src.(int64)
	if !ok {
		return fmt.Errorf("time is stored as %T", src)
	}
	*n.t = fromNanos(v)
	return nil
}

const maxNanos = math.MaxInt64

func toNanos(t time.Time) int64 {
	switch s := t.Unix(); {
	case t.IsZero():
		return 0
	case s > math.MaxInt64/int64(time.Second)-1:
		return math.MaxInt64
	case s < math.MinInt64/int64(time.Second)+1:
		return math.MinInt64
	default:
		return t.UnixNano()
	}
}

func fromNanos(v int64) time.Time {
	if v == 0 {
		return time.Time{}
	}
	return time.Unix(0, v).UTC()
}
