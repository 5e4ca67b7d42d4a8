package cli

import (
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/client"
)

// Whoever waits for projectors does not take for theirs what they still answer to somebody before.
func TestAnswersToEarlierQuestionsDoNotCount(t *testing.T) {
	asked := questions{}
	for _, x := range []struct {
		event   client.Event
		answers bool
	}{
		{client.Event{Type: typeCheckRequested, ID: "mine"}, false},
		{client.Event{Type: typeChecked, CausationID: "earlier"}, false},
		{client.Event{Type: typeChecked, CausationID: "mine"}, true},
		{client.Event{Type: typeCheckRequested, ID: "later"}, false},
		{client.Event{Type: typeChecked, CausationID: "later"}, true},
		{client.Event{Type: typeChecked}, false},
	} {
		require.Equal(t, x.answers, asked.answeredBy(x.event), "%+v", x.event)
	}
}
