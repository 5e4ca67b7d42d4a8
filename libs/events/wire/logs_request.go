package wire

// DefaultTailLines is what an absent LogsRequest.TailLines means.
const DefaultTailLines = 500

// LogsRequest asks an agent for the tail of its newest log file. Subject logs.fetch.<pc_id>, to agents; the reply is text
// of at most 800 KiB, failures included.
type LogsRequest struct {
	// TailLines counts from the end; DefaultTailLines when absent.
	TailLines uint32 `json:"tail_lines" wire:"default"`
}

// DecodeLogsRequest reads a LogsRequest. Errors wrap *FieldError.
func DecodeLogsRequest(data []byte) (LogsRequest, error) {
	return decode[LogsRequest]("logs request", data)
}

// UnmarshalJSON is DecodeLogsRequest.
func (r *LogsRequest) UnmarshalJSON(data []byte) (err error) {
	*r, err = DecodeLogsRequest(data)
	return err
}

func (r *LogsRequest) setDefaults() { r.TailLines = DefaultTailLines }
