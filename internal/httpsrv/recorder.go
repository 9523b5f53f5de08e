package httpsrv

import (
	"io"
	"net/http"
)

// Recorder notes what a handler answered. It passes ReadFrom and Unwrap on,
// so that files still leave through sendfile and deadlines can be set.
// The zero Recorder is not usable; use NewRecorder.
type Recorder struct {
	http.ResponseWriter

	Status int   // of the final answer; 0: its head is not out
	Bytes  int64 // of the body
}

// NewRecorder returns a Recorder that writes to w.
func NewRecorder(w http.ResponseWriter) *Recorder { return &Recorder{ResponseWriter: w} }

// record returns w itself when it records already.
func record(w http.ResponseWriter) *Recorder {
	if rec, ok := w.(*Recorder); ok {
		return rec
	}
	return NewRecorder(w)
}

// WriteHeader notes the status. 1xx answers go before the head and are not it,
// except 101, after which there is no other.
func (r *Recorder) WriteHeader(status int) {
	if r.Status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		r.Status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *Recorder) Write(p []byte) (int, error) {
	r.head()
	n, err := r.ResponseWriter.Write(p)
	r.Bytes += int64(n)
	return n, err
}

// ReadFrom hands src to the writer underneath, which sends files without
// copying them.
func (r *Recorder) ReadFrom(src io.Reader) (int64, error) {
	r.head()
	rf, ok := r.ResponseWriter.(io.ReaderFrom)
	if !ok {
		rf = copier{r.ResponseWriter}
	}
	n, err := rf.ReadFrom(src)
	r.Bytes += n
	return n, err
}

// Flush sends what is buffered, if the writer underneath can.
func (r *Recorder) Flush() {
	r.head()
	_ = http.NewResponseController(r.ResponseWriter).Flush() // as http.Flusher: it cannot say
}

// Unwrap is for http.ResponseController.
func (r *Recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *Recorder) head() {
	if r.Status == 0 {
		r.Status = http.StatusOK
	}
}

// copier is the slow way for writers that have no ReadFrom.
type copier struct{ io.Writer }

func (c copier) ReadFrom(src io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{c.Writer}, src)
}
