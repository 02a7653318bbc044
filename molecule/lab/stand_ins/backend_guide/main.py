#!/usr/bin/python3
import http.server,json
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200);self.end_headers();self.wfile.write(b'{"version":"0.32.15"}')
http.server.ThreadingHTTPServer(("127.0.0.1",8000),H).serve_forever()
