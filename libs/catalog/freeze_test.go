package catalog

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseFreeze(t *testing.T) {
	for body, want := range map[string]Freeze{
		`{}`: {TZ: "local"},
		`{"from":null,"until":"2026-12-31T00:00:00Z","reason":"year end","tz":"utc"}`: {Until: "2026-12-31T00:00:00Z", Reason: "year end", TZ: "utc"},
		`{"from":"2026-12-24","until":"2027-01-02"}`:                                  {From: "2026-12-24", Until: "2027-01-02", TZ: "local"},
	} {
		f, err := ParseFreeze([]byte(body))
		require.NoError(t, err)
		require.Equal(t, want, *f)
	}
	for body, want := range map[string]struct {
		kind Kind
		says string
	}{
		``:                          {Malformed, "the document is empty"},
		`[]`:                        {Shape, "expected a map, got a list"},
		`{"form":"2026-12-24"}`:     {Shape, "form: unknown key, expected one of from, until, reason, tz"},
		`{"tz":"Europe/Berlin"}`:    {Shape, `tz: expected local or utc, got "Europe/Berlin"`},
		`{"tz":null}`:               {Shape, "tz: must not be null"},
		`{"from":"soon"}`:           {Invalid, `from: expected YYYY-MM-DD or a time like 2026-01-31T08:00:00Z, got "soon"`},
		`{"until":"2026-12-24T08"}`: {Invalid, `until: expected YYYY-MM-DD or a time like 2026-01-31T08:00:00Z, got "2026-12-24T08"`},
		`{"from":"2026-12-24","until":"2026-12-24"}`: {Invalid, "from must be before until"},
	} {
		_, err := ParseFreeze([]byte(body))
		require.EqualError(t, err, want.says)
		require.Equal(t, want.kind, asError(t, err).Kind)
	}
}
