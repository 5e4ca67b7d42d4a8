//go:build !kanade_next_schema

package readmodel

// nextTables are what another schema than this version's has beside its tables; see next_build.go.
func nextTables() []table { return nil }
