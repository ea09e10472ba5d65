package peer

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// TLSFiles are the paths of PEM files: this node's certificate chain and key, and the
// certificates of who signs peers'. Replacing them needs no restart.
type TLSFiles struct {
	Cert, Key, CA string
}

// certificates are what the files held at one moment.
type certificates struct {
	pair  tls.Certificate
	roots *x509.CertPool
}

// keyring gives the certificates of now. Its methods are safe for concurrent use.
type keyring struct {
	files TLSFiles
	log   *slog.Logger
	// loaded is told of each pair that is used from now on.
	loaded func(notAfter time.Time)

	mu      sync.Mutex
	seen    [3]os.FileInfo // what the last attempt to load saw
	current *certificates
}

// openKeyring reads the files, which must be in order.
func openKeyring(files TLSFiles, log *slog.Logger, loaded func(time.Time)) (*keyring, error) {
	k := &keyring{files: files, log: log, loaded: loaded}
	seen, err := k.look()
	if err != nil {
		return nil, err
	}
	if k.current, err = k.load(); err != nil {
		return nil, err
	}
	k.seen = seen
	loaded(k.current.pair.Leaf.NotAfter)
	return k, nil
}

// get gives the certificates that the files hold, or, with one warning per change of the
// files, those that they held before.
func (k *keyring) get() *certificates {
	k.mu.Lock()
	defer k.mu.Unlock()
	seen, err := k.look()
	if err == nil && same(seen, k.seen) {
		return k.current
	}
	// Looked at before it is read: a change in between is seen the next time. A
	// missing file is seen as nil, so that its absence is said once as well.
	was := k.seen
	k.seen = seen
	var fresh *certificates
	if err == nil {
		fresh, err = k.load()
	}
	if err != nil {
		if !same(seen, was) {
			k.log.Warn("the new certificates cannot be used, the old ones stay", "error", err, "valid_until", k.current.pair.Leaf.NotAfter)
		}
		return k.current
	}
	k.current = fresh
	k.loaded(fresh.pair.Leaf.NotAfter)
	k.log.Info("certificates read again", "valid_until", fresh.pair.Leaf.NotAfter)
	return k.current
}

func (k *keyring) look() (seen [3]os.FileInfo, err error) {
	for i, path := range []string{k.files.Cert, k.files.Key, k.files.CA} {
		info, statErr := os.Stat(path)
		if statErr != nil {
			err = errors.Join(err, statErr)
			continue
		}
		seen[i] = info
	}
	return seen, err
}

func same(a, b [3]os.FileInfo) bool {
	for i := range a {
		if (a[i] == nil) != (b[i] == nil) {
			return false
		}
		if a[i] != nil && (!os.SameFile(a[i], b[i]) || a[i].Size() != b[i].Size() || !a[i].ModTime().Equal(b[i].ModTime())) {
			return false
		}
	}
	return true
}

func (k *keyring) load() (*certificates, error) {
	pair, err := tls.LoadX509KeyPair(k.files.Cert, k.files.Key)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate %s with its key %s: %w", k.files.Cert, k.files.Key, err)
	}
	pem, err := os.ReadFile(k.files.CA)
	if err != nil {
		var path *fs.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		return nil, fmt.Errorf("reading the CA's certificates %s: %w", k.files.CA, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading the CA's certificates %s: there is none in it", k.files.CA)
	}
	return &certificates{pair: pair, roots: roots}, nil
}

// config is for one connection. Neither side lets the library decide whom to trust: trusts does,
// after the handshake, when there is a channel on which a refusal can be said.
func (c *certificates) config() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{c.pair},
		ClientAuth:             tls.RequestClientCert,
		InsecureSkipVerify:     true,
		SessionTicketsDisabled: true,
	}
}

// trusts checks the chain that the other side has proven to hold the key of.
func (c *certificates) trusts(state tls.ConnectionState, usage x509.ExtKeyUsage, now time.Time) error {
	chain := state.PeerCertificates
	if len(chain) == 0 {
		return errors.New("it shows no certificate")
	}
	intermediates := x509.NewCertPool()
	for _, cert := range chain[1:] {
		intermediates.AddCert(cert)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: c.roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return fmt.Errorf("its certificate (%s, serial %x) is not trusted: %w", chain[0].Subject, chain[0].SerialNumber, err)
	}
	return nil
}

// namesNode says why a certificate does not name a node; nil when it does: by a DNS
// name that equals the id, or the URI forebay://<gateway>/<node>.
func namesNode(cert *x509.Certificate, gateway, node string) error {
	for _, name := range cert.DNSNames {
		if strings.EqualFold(name, node) {
			return nil
		}
	}
	want := url.URL{Scheme: "forebay", Host: gateway, Path: "/" + node}
	for _, uri := range cert.URIs {
		if uri.Scheme == want.Scheme && uri.Host == want.Host && uri.Path == want.Path {
			return nil
		}
	}
	return fmt.Errorf("the certificate of %s names %s: it needs the DNS name %q or the URI %q among its alternative names",
		node, namesOf(cert), node, want.String())
}

func namesOf(cert *x509.Certificate) string {
	names := append([]string{}, cert.DNSNames...)
	for _, uri := range cert.URIs {
		names = append(names, uri.String())
	}
	if len(names) == 0 {
		return "nobody"
	}
	return strings.Join(names, ", ")
}
