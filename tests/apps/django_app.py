"""A Django application in one file: forms, uploads, cookies, streams, files, errors."""

from __future__ import annotations

import hashlib
import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

settings.configure(
    DEBUG=False, SECRET_KEY="for tests alone", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__,
    FILE_UPLOAD_MAX_MEMORY_SIZE=100_000, DATA_UPLOAD_MAX_MEMORY_SIZE=None,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
)


def index(request):
    return HttpResponse("django")


def form(request):
    return JsonResponse({k: request.POST.getlist(k) for k in request.POST})


def body(request):
    return JsonResponse({"size": len(request.body), "sha": hashlib.sha256(request.body).hexdigest()})


def upload(request):
    return JsonResponse({
        name: {"filename": f.name, "size": f.size, "sha": hashlib.sha256(f.read()).hexdigest()}
        for name, f in request.FILES.items()
    })


def cookies(request):
    answer = JsonResponse(request.COOKIES)
    answer.set_cookie("one", "1")
    answer.set_cookie("two", "2", httponly=True)
    return answer


def stream(request):
    return StreamingHttpResponse((f"line {i}\n" for i in range(1000)), content_type="text/plain")


def file(request):
    return FileResponse(open(os.environ["SERVED_FILE"], "rb"))


def fail(request):
    raise RuntimeError("failed in Django")


urlpatterns = [path("", index)] + [
    path(view.__name__, view) for view in (form, body, upload, cookies, stream, file, fail)
]
application = get_wsgi_application()
